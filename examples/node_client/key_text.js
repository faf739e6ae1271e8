// SPDX-License-Identifier: Apache-2.0
/** Public keys as text (SPEC 2.5). */
import { concat, same, sha256 } from "./crypto.js";
import { usageError } from "./errors.js";

const PREFIX = "sfl1";
const LETTERS = "abcdefghijklmnopqrstuvwxyz234567"; // RFC 4648, lower case
const FORM = /^sfl1[a-z2-7]{56}$/;

const checksum = (key) =>
  sha256(concat(Buffer.from("secure-fl/identity/1"), key)).subarray(0, 3);

export function writeKeyText(key) {
  const data = concat(key, checksum(key)); // 280 bits: 56 letters, none left over
  let number = BigInt(`0x${data.toString("hex")}`);
  let letters = "";
  for (let i = 0; i < 56; i += 1) {
    letters = LETTERS[Number(number & 31n)] + letters;
    number >>= 5n;
  }
  return PREFIX + letters;
}

export function readKeyText(text) {
  if (!FORM.test(text)) {
    throw usageError("a public key is sfl1 and 56 letters of base32");
  }
  let number = 0n;
  for (const letter of text.slice(PREFIX.length)) {
    number = (number << 5n) | BigInt(LETTERS.indexOf(letter));
  }
  const data = Buffer.from(number.toString(16).padStart(70, "0"), "hex");
  const key = data.subarray(0, 32);
  if (!same(data.subarray(32), checksum(key))) {
    throw usageError("a public key with a typing error: its checksum is another");
  }
  return key;
}
