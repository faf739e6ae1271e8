#!/usr/bin/env node
// SPDX-License-Identifier: Apache-2.0
/**
 * Answers protocols/run_conformance.py: one JSON line in, one JSON line out
 * (protocols/CONFORMANCE.md). The aggregator's cases are skipped: this is a client.
 */
import { createInterface } from "node:readline";
import { decode, encode } from "./cbor.js";
import { boxInfo, checkOmission } from "./checks.js";
import { coefficients, keysOfContext, pairSeed, start } from "./client.js";
import { Context } from "./context.js";
import { SPEC, hash, inTree, treePath, treeRoot, verify, x25519 } from "./crypto.js";
import { MaskingError, refused, usageError } from "./errors.js";
import { open } from "./hpke.js";
import { readKeyText, writeKeyText } from "./key_text.js";
import { NAMES, parse, write } from "./messages.js";
import { elementFrom, le32, parseElement, reconstruct, shareAt } from "./shamir.js";
import {
  addStream, cut, decodeReals, encodeReals, fromBigInts, pack, streamKey, unpack, zeros,
} from "./words.js";

const bytes = (hex) => Buffer.from(hex, "hex");
const hex = (data) => Buffer.from(data).toString("hex");
const hexAll = (values) =>
  Object.fromEntries(Object.entries(values).map(([name, value]) => [name, hex(value)]));
const texts = (words) => Array.from(words, String);
const integer = (text) => {
  const wide = BigInt(text);
  const exact = Number.isSafeInteger(Number(wide));
  return exact ? Number(wide) : wide;
};

function real(text) {
  const special = { inf: Infinity, "-inf": -Infinity, nan: NaN };
  return text in special ? special[text] : Number(text);
}

/** A wire value as JSON: its type and its content. */
function toJson(value) {
  if (typeof value === "number" || typeof value === "bigint") {
    return { int: String(value) };
  }
  if (typeof value === "string") {
    return { text: value };
  }
  if (Array.isArray(value)) {
    return { array: value.map(toJson) };
  }
  if (value instanceof Map) {
    return { map: Array.from(value, ([key, item]) => [key, toJson(item)]) };
  }
  return { bytes: hex(value) };
}

function fromJson(value) {
  const [[type, content]] = Object.entries(value);
  switch (type) {
    case "int":
      return integer(content);
    case "bytes":
      return bytes(content);
    case "text":
      return content;
    case "array":
      return content.map(fromJson);
    case "map":
      return new Map(content.map(([key, item]) => [key, fromJson(item)]));
    default:
      throw usageError(`${type} is no type of a value`);
  }
}

function fixedPoint(input) {
  const bits = input.word_bits;
  if (input.op === "decode") {
    const words = input.words.map(BigInt);
    return { x: texts(decodeReals(words, bits, real(input.step))) };
  }
  if (input.op === "unpack") {
    const words = unpack(bytes(input.bytes), input.count, bits);
    return { words: texts(words), bytes: hex(pack(fromBigInts(words, bits), bits)) };
  }
  const grid = {
    clip: real(input.clip),
    step: real(input.step),
    bits,
    clients: input.clients,
    maxWeight: input.max_weight,
  };
  const reals = input.x.map(real);
  const coded = encodeReals(grid, input.weight, reals, input.dither.map(real));
  return { words: texts(coded.words), clipped: coded.clipped };
}

function digestOrVerify(input) {
  const parts = input.parts.map(fromJson);
  if (input.op === "digest") {
    return { digest: hex(hash(input.label, ...parts)) };
  }
  const [key, signature] = [bytes(input.public_key), bytes(input.signature)];
  if (!verify(key, signature, input.label, ...parts)) {
    throw refused("the signature does not hold");
  }
  return { valid: true };
}

function tree({ label, count, index, leaf, path, root, leaves }) {
  if (!inTree(label, count, index, bytes(leaf), path.map(bytes), bytes(root))) {
    throw refused("the leaf is not there");
  }
  if (leaves === undefined) {
    return { valid: true };
  }
  const all = leaves.map(bytes);
  return {
    valid: true,
    root: hex(treeRoot(label, all)),
    path: treePath(label, all, index).map(hex),
  };
}

function shamir(input) {
  const element = (text) => parseElement(bytes(text));
  switch (input.op) {
    case "share": {
      const secret = element(input.secret);
      const terms = input.coefficients.map(element);
      return { shares: input.xs.map((x) => hex(le32(shareAt(secret, terms, x)))) };
    }
    case "reconstruct": {
      const shares = Object.entries(input.shares);
      const pairs = shares.map(([x, share]) => [Number(x), element(share)]);
      return { secret: hex(le32(reconstruct(pairs))) };
    }
    case "element":
      return { element: hex(le32(elementFrom(bytes(input.bytes)))) };
    default:
      return { element: hex(le32(element(input.bytes))) };
  }
}

function keys(input) {
  if (input.op === "start") {
    const made = keysOfContext(bytes(input.ctx), bytes(input.random));
    return hexAll({
      beta: le32(made.beta),
      z: le32(made.z),
      seal_private_key: made.sealSecret,
      seal_key: made.sealKey,
      mask_private_key: made.maskSecret,
      mask_key: made.maskKey,
      self_seed: made.selfSeed,
    });
  }
  if (input.op === "coefficients") {
    const terms = coefficients(bytes(input.ctx), bytes(input.random), input.count);
    return { coefficients: terms.map((term) => hex(le32(term))) };
  }
  const agreed = x25519(bytes(input.private_key), bytes(input.public_key));
  const seed = pairSeed(bytes(input.ctx), agreed, bytes(input.cohort), ...input.pair);
  return { seed: hex(seed) };
}

function stream({ seed, chunk, count, word_bits: bits }) {
  const sum = zeros(bits, count);
  addStream(sum, streamKey(bytes(seed)), chunk, 1);
  return { words: texts(cut(sum, bits)) };
}

/** A client's journal of one context that lives in memory, as one case does. */
function memoryJournal() {
  const seen = new Set();
  const once = (what) => {
    if (seen.has(what)) {
      throw usageError(`${what} twice`);
    }
    seen.add(what);
  };
  return { started: () => once("started"), spent: () => once("spent") };
}

function client(input) {
  const context = new Context(input.session);
  const steps = {
    start: (state, { random }) => {
      const identity = bytes(input.identity);
      return start(context, input.client, identity, bytes(random), memoryJournal());
    },
    cohort: (state, { message, random }) => state.cohort(bytes(message), bytes(random)),
    inbox: (state, { message, words, claim, attached }) =>
      state.inbox(bytes(message), words.map(BigInt), bytes(claim), bytes(attached)),
    statement: (state, { message }) => state.statement(bytes(message)),
    signatures: (state, { message }) => state.signatures(bytes(message)),
  };
  const outcomes = [];
  let state;
  for (const operation of input.operations) {
    try {
      let sent;
      [sent, state] = steps[operation.op](state, operation);
      outcomes.push({ sent: Array.isArray(sent) ? sent.map(hex) : hex(sent) });
    } catch (error) {
      outcomes.push(fault(error));
      break;
    }
  }
  return { outcomes };
}

function message(input) {
  const context = new Context(input.session);
  const name = NAMES.get(input.kind);
  const parsed = parse(name, bytes(input.bytes), context, input.reader);
  return { accepted: true, bytes: hex(write(name, context, parsed)) };
}

function omission(input) {
  const context = new Context(input.session);
  const statement = parse("Statement", bytes(input.statement), context);
  const signatures = parse("Signatures", bytes(input.signatures), context);
  checkOmission(context, input.client, statement, signatures);
  return { omitted: true };
}

const KINDS = {
  hello: () => ({ specification: SPEC, implementation: "secure-fl node client 1.0.0" }),
  wire: (input) => {
    const value = decode(bytes(input.bytes));
    return { value: toJson(value), bytes: hex(encode(value)) };
  },
  hash: digestOrVerify,
  tree,
  key_text: ({ text }) => {
    const key = readKeyText(text);
    return { public_key: hex(key), text: writeKeyText(key) };
  },
  context: ({ session }) => ({ ctx: hex(new Context(session).ctx) }),
  fixed_point: fixedPoint,
  shamir,
  keys,
  stream,
  box: ({ private_key: secret, ctx, cohort, dealer, to, box }) => {
    const info = boxInfo(bytes(ctx), bytes(cohort), dealer, to);
    return { plain: hex(open(bytes(secret), info, bytes(box))) };
  },
  message,
  client,
  omission,
};

/** A fault as the runner reads it; anything else is a defect, and shows as one. */
function fault(error) {
  if (!(error instanceof MaskingError)) {
    throw error;
  }
  const { kind, culprit } = error;
  return culprit === undefined ? { error: kind } : { error: kind, culprit };
}

function answer({ id, kind, input }) {
  const run = KINDS[kind];
  if (run === undefined) {
    return { id, skip: true };
  }
  try {
    return { id, result: run(input) };
  } catch (error) {
    return { id, ...fault(error) };
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  process.stdout.write(`${JSON.stringify(answer(JSON.parse(line)))}\n`);
}
