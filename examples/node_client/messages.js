// SPDX-License-Identifier: Apache-2.0
/**
 * The ten messages (SPEC 5 and messages.cddl): one table of forms, with which they
 * are parsed and encoded. A parsed message has its fields by name; rows stay arrays,
 * as they stand in signatures and tree leaves.
 */
import { decode, encode } from "./cbor.js";
import { protocolError } from "./errors.js";
import { packedBytes } from "./words.js";

export const SELF_SHARE = 1;
export const KEY_SHARE = 2;

const BOX_BYTES = 112;
const LONGEST_PATH = 64;

const require = (holds, what) => {
  if (!holds) {
    throw protocolError(`not ${what}`);
  }
};

const below = (value, limit) =>
  typeof value === "number" && value >= 0 && value < limit;

const bytesOf = (...lengths) => (value) =>
  require(
    value instanceof Uint8Array && lengths.includes(value.length),
    `${lengths.join(" or ")} bytes`,
  );

const client = (value, context) =>
  require(below(value, context.clients), "a client of the roster");
const index = (value, context) =>
  require(below(value, context.chunks), "a chunk of the vector");
const bytes = (value) => require(value instanceof Uint8Array, "bytes");
const key = bytesOf(32);
const digest = bytesOf(32);
const share = bytesOf(32);
const signature = bytesOf(64);
const attached = bytesOf(0, 32);
const box = bytesOf(0, BOX_BYTES);
const shareKind = (value) =>
  require(value === SELF_SHARE || value === KEY_SHARE, "a kind of share");
const path = (value) => {
  require(Array.isArray(value) && value.length <= LONGEST_PATH, "a path");
  value.forEach(digest);
};

/** Rows begin with a client and ascend in it strictly (SPEC 5.1). */
const rowsOf = (...forms) => (value, context) => {
  require(Array.isArray(value), "rows");
  let last = -1;
  for (const row of value) {
    require(Array.isArray(row) && row.length === forms.length, "a row");
    forms.forEach((form, i) => form(row[i], context));
    require(row[0] > last, "in ascending order");
    last = row[0];
  }
};

const FORMS = {
  Advertise: [1, { client, sealKey: key, maskKey: key, signature }],
  CohortKeys: [2, { rows: rowsOf(client, key, key, signature) }],
  SealedShares: [
    3,
    {
      client,
      commitment: digest,
      rows: rowsOf(client, box, digest, digest),
      signature,
    },
  ],
  Inbox: [
    4,
    { rows: rowsOf(client, digest, box, digest, digest, path, digest, signature) },
  ],
  Chunk: [5, { client, index, packed: bytes }],
  MaskedInput: [
    6,
    { client, root: digest, dealers: digest, claim: digest, attached, signature },
  ],
  Statement: [
    7,
    { cohort: digest, dealers: digest, rows: rowsOf(client, digest, digest, attached) },
  ],
  Agreement: [8, { client, signature }],
  Signatures: [9, { rows: rowsOf(client, signature) }],
  Reveal: [10, { client, rows: rowsOf(client, shareKind, share), signature }],
};

/** Rules about more than one field: whose box is empty, how long a chunk is. */
const emptyOnlyFor = (own, place) => (row) =>
  require((row[place].length === 0) === (row[0] === own), "an empty box of one's own");

const MORE_RULES = {
  SealedShares: (message) => message.rows.forEach(emptyOnlyFor(message.client, 1)),
  Inbox: (message, context, reader) => message.rows.forEach(emptyOnlyFor(reader, 2)),
  Chunk: ({ packed, index: place }, context) => {
    const length = packedBytes(context.wordsIn(place), context.bits);
    require(packed.length === length, "as long as this chunk");
  },
};

export const NAMES = new Map(
  Object.entries(FORMS).map(([name, [number]]) => [number, name]),
);

/** Reads `data` as message `name` of `context`; an Inbox is that of `reader`. */
export function parse(name, data, context, reader) {
  const [number, form] = FORMS[name];
  const map = decode(data);
  const fields = Object.entries(form);
  require(map instanceof Map && map.size === fields.length + 2, `a ${name}`);
  require(map.get(0) === number, `of kind ${number}`);
  const ctx = map.get(1);
  digest(ctx);
  require(Buffer.compare(ctx, context.ctx) === 0, "of this context");
  const message = {};
  fields.forEach(([field, check], i) => {
    require(map.has(i + 2), `complete: ${field} is missing`);
    check(map.get(i + 2), context);
    message[field] = map.get(i + 2);
  });
  MORE_RULES[name]?.(message, context, reader);
  return message;
}

/** The bytes of message `name` with these fields. */
export function write(name, context, fields) {
  const [number, form] = FORMS[name];
  const map = new Map([[0, number], [1, context.ctx]]);
  Object.keys(form).forEach((field, i) => map.set(i + 2, fields[field]));
  return Buffer.from(encode(map));
}
