// SPDX-License-Identifier: Apache-2.0
/**
 * HPKE base mode, single shot (RFC 9180), with the one suite of SPEC 4.5:
 * DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20Poly1305, no associated data.
 */
import { createCipheriv, createDecipheriv, randomBytes } from "node:crypto";
import { concat, hkdfExpand, hkdfExtract, publicHalf, x25519 } from "./crypto.js";
import { refused } from "./errors.js";

const EMPTY = Buffer.alloc(0);
const VERSION = Buffer.from("HPKE-v1");
const KEM_SUITE = concat(Buffer.from("KEM"), Buffer.of(0x00, 0x20));
const SUITE = concat(Buffer.from("HPKE"), Buffer.from("002000010003", "hex"));
const BASE_MODE = Buffer.of(0);
const KEY_BYTES = 32;
const TAG_BYTES = 16;
const CIPHER = "chacha20-poly1305";

/** What a box holds beside its plain text: the encapsulated key and the tag. */
export const OVERHEAD = KEY_BYTES + TAG_BYTES;

function extract(suite, salt, label, secret) {
  return hkdfExtract(salt, concat(VERSION, suite, Buffer.from(label), secret));
}

function expand(suite, key, label, info, length) {
  const size = Buffer.of(length >> 8, length & 0xff);
  const labelled = concat(size, VERSION, suite, Buffer.from(label), info);
  return hkdfExpand(key, labelled, length);
}

/** RFC 9180, sections 4.1 and 5.1: from the key agreement to key and nonce. */
function schedule(shared, encapsulated, receiver, info) {
  const agreed = extract(KEM_SUITE, EMPTY, "eae_prk", shared);
  const both = concat(encapsulated, receiver);
  const secret = expand(KEM_SUITE, agreed, "shared_secret", both, 32);
  const context = concat(
    BASE_MODE,
    extract(SUITE, EMPTY, "psk_id_hash", EMPTY),
    extract(SUITE, EMPTY, "info_hash", info),
  );
  const prk = extract(SUITE, secret, "secret", EMPTY);
  return {
    key: expand(SUITE, prk, "key", context, 32),
    nonce: expand(SUITE, prk, "base_nonce", context, 12),
  };
}

/** Seals `plain` to `receiver`; refuses a receiver's key of low order. */
export function seal(receiver, info, plain) {
  const ephemeral = randomBytes(KEY_BYTES);
  const encapsulated = publicHalf("X25519", ephemeral);
  const shared = x25519(ephemeral, receiver);
  const { key, nonce } = schedule(shared, encapsulated, receiver, info);
  const cipher = createCipheriv(CIPHER, key, nonce, { authTagLength: TAG_BYTES });
  const sealed = concat(cipher.update(plain), cipher.final());
  return concat(encapsulated, sealed, cipher.getAuthTag());
}

/** Opens a box with the receiver's private key, or refuses it. */
export function open(secret, info, box) {
  if (box.length < OVERHEAD) {
    throw refused("a box that is shorter than its overhead");
  }
  const encapsulated = box.subarray(0, KEY_BYTES);
  const shared = x25519(secret, encapsulated);
  const receiver = publicHalf("X25519", secret);
  const { key, nonce } = schedule(shared, encapsulated, receiver, info);
  const cipher = createDecipheriv(CIPHER, key, nonce, { authTagLength: TAG_BYTES });
  cipher.setAuthTag(box.subarray(-TAG_BYTES));
  const plain = cipher.update(box.subarray(KEY_BYTES, -TAG_BYTES));
  try {
    return concat(plain, cipher.final());
  } catch {
    throw refused("a box that does not open");
  }
}
