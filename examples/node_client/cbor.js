// SPDX-License-Identifier: Apache-2.0
/**
 * Deterministic CBOR of SPEC 2.1, on top of cborg.
 *
 * cborg refuses forms that are not the shortest, indefinite lengths and bytes left
 * over. The rest is done here: which types there are, how deep, which keys and in
 * which order. Tokens are judged as they are read, before anything is built from
 * them, so a tag is refused before it means anything.
 *
 * Integers are numbers where those are exact and BigInts beyond; bytes are
 * Uint8Array, text is string, arrays are Array, maps are Map.
 */
import { decode as cborgDecode, encode as cborgEncode, Tokenizer } from "cborg";
import { protocolError, usageError } from "./errors.js";

const DEEPEST = 8;
const LARGEST_KEY = 23;
const SMALLEST_INTEGER = -(2n ** 63n);
const LARGEST_INTEGER = 2n ** 64n - 1n;

const DECODING = {
  strict: true,
  allowIndefinite: false,
  allowUndefined: false,
  allowInfinity: false,
  allowNaN: false,
  allowBigInt: true,
  useMaps: true,
  rejectDuplicateMapKeys: true,
  retainStringBytes: true,
};

// cborg's own reading of text replaces what is not UTF-8, and drops a byte order mark.
const UTF8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** Reads tokens, and refuses each that SPEC 2.1 does not have, where it stands. */
class StrictTokenizer {
  constructor(data) {
    this.tokens = new Tokenizer(data, DECODING);
    this.open = []; // the arrays and maps around the next token
  }

  pos() {
    return this.tokens.pos();
  }

  done() {
    return this.tokens.done();
  }

  next() {
    const token = this.tokens.next();
    while (this.open.length > 0 && this.open.at(-1).left === 0) {
      this.open.pop();
    }
    if (this.open.length > DEEPEST) {
      throw protocolError("nested too deep");
    }
    if (this.open.length > 0) {
      this.#enter(this.open.at(-1), token);
    }
    switch (token.type.name) {
      case "uint":
      case "bytes":
        break;
      case "string":
        if (token.byteValue !== undefined) {
          token.value = UTF8.decode(token.byteValue);
        }
        break;
      case "negint":
        if (BigInt(token.value) < SMALLEST_INTEGER) {
          throw protocolError("an integer below -2^63");
        }
        break;
      case "array":
        this.open.push({ left: token.value, map: false, key: -1 });
        break;
      case "map":
        if (token.value > LARGEST_KEY + 1) {
          throw protocolError("a map with too many keys");
        }
        this.open.push({ left: 2 * token.value, map: true, key: -1 });
        break;
      default:
        throw protocolError(`${token.type.name} is not among the types`);
    }
    return token;
  }

  /** `token` is the next item of `container`: a key must be small and ascending. */
  #enter(container, token) {
    if (container.map && container.left % 2 === 0) {
      const small = token.type.name === "uint" && token.value <= LARGEST_KEY;
      if (!small || token.value <= container.key) {
        throw protocolError("a map's keys are integers from 0 to 23, ascending");
      }
      container.key = token.value;
    }
    container.left -= 1;
  }
}

/** The value that `data` encodes; refuses all but its one form. */
export function decode(data) {
  const bytes = new Uint8Array(data);
  let value;
  try {
    value = cborgDecode(bytes, {
      ...DECODING,
      tokenizer: new StrictTokenizer(bytes),
    });
  } catch (error) {
    throw protocolError(error.message);
  }
  // Stands behind all rules above: one value, one form.
  if (Buffer.compare(encode(value), bytes) !== 0) {
    throw protocolError("not the one form of its value");
  }
  return value;
}

/** cbor(value), with the map keys ascending. */
export function encode(value) {
  assertEncodable(value, 0);
  return cborgEncode(value);
}

function assertEncodable(value, depth) {
  if (depth > DEEPEST) {
    throw usageError("nested too deep");
  }
  if (typeof value === "number") {
    if (!Number.isSafeInteger(value) || Object.is(value, -0)) {
      throw usageError(`${value} is not an exact integer`);
    }
  } else if (typeof value === "bigint") {
    if (value < SMALLEST_INTEGER || value > LARGEST_INTEGER) {
      throw usageError(`${value} does not fit 64 bits`);
    }
  } else if (typeof value === "string") {
    if (!value.isWellFormed()) {
      throw usageError("text with half a surrogate pair");
    }
  } else if (Array.isArray(value)) {
    value.forEach((item) => assertEncodable(item, depth + 1));
  } else if (value instanceof Map) {
    for (const [key, item] of value) {
      if (!Number.isInteger(key) || key < 0 || key > LARGEST_KEY) {
        throw usageError("a map's keys are integers from 0 to 23");
      }
      assertEncodable(item, depth + 1);
    }
  } else if (!(value instanceof Uint8Array)) {
    throw usageError("a value of a type that messages do not have");
  }
}
