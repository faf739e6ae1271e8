// SPDX-License-Identifier: Apache-2.0
/** The field of SPEC 4.1 and Shamir's scheme over it (SPEC 4.3). */
import { ZERO_BLOCK, aesCtr, derive } from "./crypto.js";
import { refused } from "./errors.js";

export const PRIME = 2n ** 255n - 19n;
const ELEMENT_BYTES = 32;
const WIDE_BYTES = 48;

const mod = (number) => ((number % PRIME) + PRIME) % PRIME;

export function littleEndian(bytes) {
  const hex = Buffer.from(bytes).reverse().toString("hex");
  return hex === "" ? 0n : BigInt(`0x${hex}`);
}

/** le32: an element as 32 bytes, little-endian. */
export function le32(element) {
  const hex = element.toString(16).padStart(2 * ELEMENT_BYTES, "0");
  return Buffer.from(hex, "hex").reverse();
}

/** Reads le32, and refuses every other form. */
export function parseElement(bytes) {
  const element = littleEndian(bytes);
  if (bytes.length !== ELEMENT_BYTES || element >= PRIME) {
    throw refused("not 32 bytes below the prime");
  }
  return element;
}

/** One element from 48 uniform bytes, with a bias below 2^-128. */
export const elementFrom = (wide) => littleEndian(wide) % PRIME;

/** Elements of SPEC 4.1. */
export function elements(ctx, random, label, count) {
  const key = derive(ctx, random, label);
  const bytes = aesCtr(key, ZERO_BLOCK, WIDE_BYTES * count);
  return Array.from({ length: count }, (_, i) =>
    elementFrom(bytes.subarray(WIDE_BYTES * i, WIDE_BYTES * (i + 1))),
  );
}

/** The polynomial's value at `x`; `coefficients` are those of x^1 and up. */
export function shareAt(secret, coefficients, x) {
  const point = BigInt(x);
  const higher = coefficients.reduceRight((sum, c) => (sum * point + c) % PRIME, 0n);
  return (higher * point + secret) % PRIME;
}

export function power(base, exponent) {
  let result = 1n;
  let square = mod(base);
  for (let rest = exponent; rest > 0n; rest >>= 1n) {
    if (rest & 1n) {
      result = (result * square) % PRIME;
    }
    square = (square * square) % PRIME;
  }
  return result;
}

/** The secret behind shares, given as pairs of x and share: Lagrange at 0. */
export function reconstruct(shares) {
  let secret = 0n;
  for (const [x, share] of shares) {
    let above = 1n;
    let below = 1n;
    for (const [other] of shares) {
      if (other !== x) {
        above = mod(above * BigInt(other));
        below = mod(below * (BigInt(other) - BigInt(x)));
      }
    }
    secret = mod(secret + share * above * power(below, PRIME - 2n));
  }
  return secret;
}
