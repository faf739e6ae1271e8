// SPDX-License-Identifier: Apache-2.0
/** Hashes, signatures, key derivation and streams (SPEC 2.2, 2.3, 4.1). */
import {
  createCipheriv,
  createHash,
  createHmac,
  createPrivateKey,
  createPublicKey,
  diffieHellman,
  hkdfSync,
  randomBytes,
  sign as signBytes,
  verify as verifyBytes,
} from "node:crypto";
import { encode } from "./cbor.js";
import { refused, usageError } from "./errors.js";

/** The specification's name and version: every label starts with it. */
export const SPEC = "secure-fl/masking/1";

export const same = (a, b) => Buffer.compare(a, b) === 0;

export const concat = (...parts) => Buffer.concat(parts);

export const sha256 = (bytes) => createHash("sha256").update(bytes).digest();

export const hash = (label, ...parts) => sha256(encode([label, ...parts]));

// Raw 32-byte keys in the two DER wrappings that Node reads (RFC 8410).
const OIDS = { X25519: "2b656e", Ed25519: "2b6570" };

function privateKey(curve, raw) {
  const der = Buffer.from(`302e02010030050603${OIDS[curve]}04220420`, "hex");
  return createPrivateKey({ key: concat(der, raw), format: "der", type: "pkcs8" });
}

function publicKey(curve, raw) {
  const der = Buffer.from(`302a30050603${OIDS[curve]}032100`, "hex");
  return createPublicKey({ key: concat(der, raw), format: "der", type: "spki" });
}

/** The 32 raw bytes of the public half of a private key. */
export function publicHalf(curve, raw) {
  const key = createPublicKey(privateKey(curve, raw));
  return key.export({ format: "der", type: "spki" }).subarray(-32);
}

export function sign(identity, label, ...parts) {
  return signBytes(null, encode([label, ...parts]), privateKey("Ed25519", identity));
}

/** Whether `signature` holds; OpenSSL refuses a scalar that is not reduced. */
export function verify(key, signature, label, ...parts) {
  const data = encode([label, ...parts]);
  try {
    return verifyBytes(null, data, publicKey("Ed25519", key), signature);
  } catch {
    return false; // the key is no point of the curve
  }
}

// 2^255 - 19, big-endian.
const PRIME_BYTES = Buffer.from(`7f${"ff".repeat(30)}ed`, "hex");

/**
 * X25519. Refuses a public key that is not usable (SPEC 4.2): one that is no number
 * below p, or of low order, so that the result is zero.
 */
export function x25519(secret, other) {
  if (Buffer.compare(Buffer.from(other).reverse(), PRIME_BYTES) >= 0) {
    throw refused("an X25519 key that has not its one form");
  }
  let shared;
  try {
    shared = diffieHellman({
      privateKey: privateKey("X25519", secret),
      publicKey: publicKey("X25519", other),
    });
  } catch {
    throw refused("X25519 gives zero");
  }
  if (shared.every((byte) => byte === 0)) {
    throw refused("X25519 gives zero");
  }
  return shared;
}

export const hkdfExtract = (salt, secret) =>
  createHmac("sha256", salt).update(secret).digest();

/** HKDF-Expand of RFC 5869, for at most 255 blocks. */
export function hkdfExpand(key, info, length) {
  let block = Buffer.alloc(0);
  let out = Buffer.alloc(0);
  for (let i = 1; out.length < length; i += 1) {
    block = createHmac("sha256", key)
      .update(concat(block, info, Buffer.of(i)))
      .digest();
    out = concat(out, block);
  }
  return out.subarray(0, length);
}

const labelled = (label, parts) => encode([`${SPEC} ${label}`, ...parts]);

/** Derive of SPEC 4.1: Extract under `ctx`, then Expand. */
export function derive(ctx, secret, label, ...parts) {
  return Buffer.from(hkdfSync("sha256", secret, ctx, labelled(label, parts), 32));
}

/** Expand of SPEC 4.1. */
export function expand(key, label, ...parts) {
  return hkdfExpand(key, labelled(label, parts), 32);
}

export const ZERO_BLOCK = Buffer.alloc(16);

/** `count` bytes of AES-256-CTR from an initial counter block. */
export function aesCtr(key, block, count) {
  const cipher = createCipheriv("aes-256-ctr", key, block);
  return cipher.update(Buffer.alloc(count));
}

/** 32 bytes of randomness for one step, refused if all zero (SPEC 4.1). */
export function checkedRandom(bytes) {
  if (bytes.length !== 32 || bytes.every((byte) => byte === 0)) {
    throw usageError("randomness is 32 bytes that are not all zero");
  }
  return bytes;
}

export const freshRandom = () => checkedRandom(randomBytes(32));

function nextLevel(label, nodes) {
  const level = [];
  for (let i = 0; i + 1 < nodes.length; i += 2) {
    level.push(hash(`${label} node`, nodes[i], nodes[i + 1]));
  }
  if (nodes.length % 2 === 1) {
    level.push(nodes.at(-1)); // no neighbour: it moves up unchanged
  }
  return level;
}

function levels(label, leaves) {
  const all = [leaves.map((leaf) => hash(`${label} leaf`, leaf))];
  while (all.at(-1).length > 1) {
    all.push(nextLevel(label, all.at(-1)));
  }
  return all;
}

export const treeRoot = (label, leaves) => levels(label, leaves).at(-1)[0];

export function treePath(label, leaves, index) {
  const path = [];
  let place = index;
  for (const level of levels(label, leaves)) {
    if ((place ^ 1) < level.length) {
      path.push(level[place ^ 1]);
    }
    place >>= 1;
  }
  return path;
}

/** Whether `leaf` stands at `index` of `count` leaves under `root` (SPEC 2.3). */
export function inTree(label, count, index, leaf, path, root) {
  if (index >= count) {
    return false;
  }
  let node = hash(`${label} leaf`, leaf);
  let used = 0;
  for (let place = index, width = count; width > 1; place >>= 1) {
    if ((place ^ 1) < width) {
      if (used === path.length) {
        return false;
      }
      const other = path[used];
      used += 1;
      node =
        place % 2 === 0
          ? hash(`${label} node`, node, other)
          : hash(`${label} node`, other, node);
    }
    width = Math.ceil(width / 2);
  }
  return used === path.length && same(node, root);
}
