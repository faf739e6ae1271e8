// SPDX-License-Identifier: Apache-2.0
/**
 * Which 32 bytes may be a long-term key (SPEC 3.1): the canonical encoding of a point
 * of edwards25519 whose order does not divide 8. OpenSSL verifies under any bytes,
 * and under a point of small order everybody's signature holds.
 */
import { PRIME, littleEndian, power } from "./shamir.js";

const mod = (number) => ((number % PRIME) + PRIME) % PRIME;

const D = mod(-121665n * power(121666n, PRIME - 2n));
const ROOT_OF_MINUS_ONE = power(2n, (PRIME - 1n) / 4n);

/** The point's x and y, or undefined if these are no canonical encoding (RFC 8032). */
function decodePoint(bytes) {
  const number = littleEndian(bytes);
  const y = BigInt.asUintN(255, number);
  const odd = number >> 255n;
  if (y >= PRIME) {
    return undefined;
  }
  // x^2 = u / v: the root of it, if there is one.
  const u = mod(y * y - 1n);
  const v = mod(D * y * y + 1n);
  const square = mod(u * power(v, PRIME - 2n));
  let x = power(square, (PRIME + 3n) / 8n);
  if (mod(x * x) !== square) {
    x = mod(x * ROOT_OF_MINUS_ONE);
  }
  if (mod(x * x) !== square || (x === 0n && odd === 1n)) {
    return undefined;
  }
  return { x: (x & 1n) === odd ? x : PRIME - x, y };
}

/** Twice a point in projective coordinates, on a curve with a = -1. */
function double([x, y, z]) {
  const sum = (x + y) ** 2n;
  const [xx, yy] = [x * x, y * y];
  const f = yy - xx;
  const j = f - 2n * z * z;
  return [mod((sum - xx - yy) * j), mod(f * (-xx - yy)), mod(f * j)];
}

export function isPublicKey(bytes) {
  const point = decodePoint(bytes);
  if (point === undefined) {
    return false;
  }
  const [x, y, z] = double(double(double([point.x, point.y, 1n])));
  return !(x === 0n && y === z); // eight times it is not the neutral point
}
