// SPDX-License-Identifier: Apache-2.0
/** Words of a vector: packing (SPEC 2.4), fixed point (3.4) and streams (4.4). */
import { endianness } from "node:os";
import { aesCtr, expand } from "./crypto.js";
import { planError, refused, usageError } from "./errors.js";

if (endianness() !== "LE") {
  throw new Error("streams are read in place, which takes a little-endian machine");
}

// The smallest of 1, 2, 4, 8 bytes that hold a word. Sums in these arrays are mod
// 2^8w, and 2^b divides that: it is enough to cut to b bits at the end.
const ARRAYS = [
  [8, Uint8Array],
  [16, Uint16Array],
  [32, Uint32Array],
  [64, BigUint64Array],
];

const arrayOf = (bits) => ARRAYS.find(([most]) => bits <= most)[1];

/** An array for words of `bits` bits; its sums may hold more, see `cut`. */
export const zeros = (bits, count) => new (arrayOf(bits))(count);

/** Cuts each word to its low `bits` bits. */
export function cut(words, bits) {
  if (words instanceof BigUint64Array) {
    const mask = 2n ** BigInt(bits) - 1n;
    return words.map((word) => word & mask);
  }
  const mask = 2 ** bits - 1;
  return words.map((word) => word & mask);
}

/** Reads words from BigInts, each of which must fit. */
export function fromBigInts(values, bits) {
  if (values.some((value) => value < 0n || value >= 2n ** BigInt(bits))) {
    throw usageError(`a word does not fit ${bits} bits`);
  }
  const words = zeros(bits, values.length);
  const wide = words instanceof BigUint64Array;
  values.forEach((value, i) => {
    words[i] = wide ? value : Number(value);
  });
  return words;
}

/** The key of all streams of a seed (SPEC 4.4). */
export const streamKey = (seed) => expand(seed, "stream");

/** Adds a chunk's stream to `sum` (sign 1), or takes it away (sign -1), in place. */
export function addStream(sum, key, chunk, sign) {
  const block = Buffer.alloc(16); // the chunk's number, then a counter from zero
  block.writeBigUInt64BE(BigInt(chunk));
  const bytes = aesCtr(key, block, sum.byteLength);
  const copy = new Uint8Array(bytes).buffer; // aligned for wider words
  const stream = new sum.constructor(copy);
  for (let i = 0; i < sum.length; i += 1) {
    sum[i] = sign > 0 ? sum[i] + stream[i] : sum[i] - stream[i];
  }
}

export const packedBytes = (count, bits) => Math.ceil((count * bits) / 8);

/** Words, each below 2^bits, as one little-endian number (SPEC 2.4). */
export function pack(words, bits) {
  if (bits === 8 * words.BYTES_PER_ELEMENT) {
    return Buffer.from(words.slice().buffer);
  }
  const out = Buffer.alloc(packedBytes(words.length, bits));
  let held = 0n; // bits that do not fill a byte yet
  let count = 0n;
  let place = 0;
  for (const word of words) {
    held |= BigInt(word) << count;
    for (count += BigInt(bits); count >= 8n; count -= 8n) {
      out[place] = Number(held & 0xffn);
      place += 1;
      held >>= 8n;
    }
  }
  if (count > 0n) {
    out[place] = Number(held);
  }
  return out;
}

/** BigInts from packed bytes; refuses another length, or padding that is not zero. */
export function unpack(bytes, count, bits) {
  if (bytes.length !== packedBytes(count, bits)) {
    throw refused("packed words of another length");
  }
  const values = [];
  const width = BigInt(bits);
  let held = 0n;
  let ready = 0n;
  for (const byte of bytes) {
    held |= BigInt(byte) << ready;
    ready += 8n;
    while (ready >= width && values.length < count) {
      values.push(BigInt.asUintN(bits, held));
      held >>= width;
      ready -= width;
    }
  }
  if (held !== 0n) {
    throw refused("the bits beyond the last word are not zero");
  }
  return values;
}

const EXACT_BITS = 53; // integers below 2^53 are exact in binary64

function checkGrid({ clip, step, bits, clients, maxWeight }) {
  const positive = (real) => Number.isFinite(real) && real > 0;
  if (!positive(clip) || !positive(step) || bits < 8 || bits > 64) {
    throw planError("clip and step are positive and finite, words have 8 to 64 bits");
  }
  const largest = Math.ceil(clip / step);
  const limit = 2n ** BigInt(Math.min(bits - 1, EXACT_BITS)) - 1n;
  const fits =
    Number.isFinite(largest) &&
    BigInt(clients) * BigInt(maxWeight) * BigInt(largest) <= limit;
  if (!fits) {
    throw planError("a sum may wrap, or not be exact in binary64");
  }
}

/** Reals to words (SPEC 3.4): the words, and how many reals were clipped. */
export function encodeReals(grid, weight, reals, dither) {
  checkGrid(grid);
  const { clip, step, bits, maxWeight } = grid;
  if (!Number.isInteger(weight) || weight < 1 || weight > maxWeight) {
    throw usageError("a weight is an integer from 1 to the plan's largest");
  }
  if (!reals.every(Number.isFinite)) {
    throw usageError("a value is not finite");
  }
  const words = reals.map((real, i) => {
    const scaled = Math.min(Math.max(real, -clip), clip) / step;
    const floor = Math.floor(scaled);
    const units = floor + (scaled - floor + dither[i] >= 1 ? 1 : 0);
    return BigInt.asUintN(bits, BigInt(weight) * BigInt(units));
  });
  return { words, clipped: reals.filter((real) => Math.abs(real) > clip).length };
}

/** Words of an opened sum to reals: two's complement, times the step. */
export const decodeReals = (words, bits, step) =>
  words.map((word) => Number(BigInt.asIntN(bits, word)) * step);
