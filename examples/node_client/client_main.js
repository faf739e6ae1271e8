#!/usr/bin/env node
// SPDX-License-Identifier: Apache-2.0
/**
 * Takes part in one context, speaking JSON lines over standard input and output.
 *
 * First line in: the set-up, see README.md. Then each line in is {"receive": hex}, a
 * message of the aggregator, and each line out {"send": hex}, one for it. The last
 * line out is {"done": true}, or {"error": ..., "culprit": ..., "message": ...}.
 * Exit status: 0 when it has revealed, 1 after a fault, 2 when input ends early.
 */
import { createPrivateKey } from "node:crypto";
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { start } from "./client.js";
import { Context } from "./context.js";
import { freshRandom } from "./crypto.js";
import { MaskingError, usageError } from "./errors.js";
import { Journal } from "./journal.js";

const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

function bytes(text, what) {
  if (typeof text !== "string" || !/^([0-9a-f]{2})*$/.test(text)) {
    throw usageError(`${what} is lower-case hex`);
  }
  return Buffer.from(text, "hex");
}

function json(line) {
  try {
    return JSON.parse(line);
  } catch {
    throw usageError("a line is no JSON");
  }
}

/** The Ed25519 private key in a file: PEM without passphrase, or 32 bytes as hex. */
function readIdentity(file) {
  const text = readFileSync(file, "utf8").trim();
  if (text.startsWith("-----BEGIN")) {
    return Buffer.from(createPrivateKey(text).export({ format: "jwk" }).d, "base64url");
  }
  return bytes(text, "an identity");
}

function readSetUp(line) {
  const given = json(line);
  const names = ["session", "client", "identity_file", "journal", "words", "claim"];
  const missing = names.filter((name) => given[name] === undefined);
  if (missing.length > 0) {
    throw usageError(`the set-up lacks ${missing.join(", ")}`);
  }
  if (!given.words.every((word) => /^[0-9]{1,20}$/.test(word))) {
    throw usageError("words are decimal text");
  }
  return {
    ...given,
    context: new Context(given.session),
    identity: readIdentity(given.identity_file),
    words: given.words.map(BigInt),
    claim: bytes(given.claim, "a claim"),
    attached: bytes(given.attached ?? "", "an attached root"),
    proofs: (given.proofs ?? []).map(({ statement, signatures }) => ({
      statement: bytes(statement, "a statement"),
      signatures: bytes(signatures, "signatures"),
    })),
  };
}

/** The four answers, in order: each takes the aggregator's bytes and the state. */
const answersOf = ({ words, claim, attached }) => [
  (state, data) => state.cohort(data, freshRandom()),
  (state, data) => state.inbox(data, words, claim, attached),
  (state, data) => state.statement(data),
  (state, data) => state.signatures(data),
];

async function run(lines) {
  const first = await lines.next();
  if (first.done) {
    return 2;
  }
  const setUp = readSetUp(first.value);
  const { session, client, words, proofs } = setUp;
  const journal = new Journal(setUp.journal, session, client, words, proofs);
  let [sent, state] = start(
    setUp.context, client, setUp.identity, freshRandom(), journal,
  );
  say({ send: sent.toString("hex") });
  for (const answer of answersOf(setUp)) {
    const line = await lines.next();
    if (line.done) {
      return 2;
    }
    const data = bytes(json(line.value).receive, "a message");
    [sent, state] = answer(state, data);
    [sent].flat().forEach((message) => say({ send: message.toString("hex") }));
  }
  say({ done: true });
  return 0;
}

try {
  const input = createInterface({ input: process.stdin });
  process.exitCode = await run(input[Symbol.asyncIterator]());
  input.close();
} catch (error) {
  if (!(error instanceof MaskingError)) {
    throw error;
  }
  const { kind, culprit, message } = error;
  say({ error: kind, culprit, message });
  process.exitCode = 1;
}
process.stdin.destroy();
