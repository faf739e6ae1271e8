// SPDX-License-Identifier: Apache-2.0
/** A context: what all parties agreed on before the first message (SPEC 3). */
import { SPEC, hash } from "./crypto.js";
import { isPublicKey } from "./edwards.js";
import { planError, usageError } from "./errors.js";

const hex = (text, length, what) => {
  const bytes = Buffer.from(String(text), "hex");
  if (!/^([0-9a-f]{2})*$/.test(text) || bytes.length !== length) {
    throw usageError(`${what} is ${length} bytes, as lower-case hex`);
  }
  return bytes;
};

const counter = (value, what) => {
  if (!Number.isSafeInteger(value) || value < 0) {
    throw usageError(`${what} is an integer from 0`);
  }
  return value;
};

/** In the order in which SPEC 3.2 has them. */
const PARAMETERS = [
  "clients", "length", "bits", "chunkWords", "threshold", "minClients", "colluding",
];

/** Refuses parameters that no party may accept (SPEC 3.2 and 3.3). */
function checkParameters(p) {
  if (!PARAMETERS.every((name) => Number.isSafeInteger(p[name]))) {
    throw planError("a parameter is missing or no integer");
  }
  if (p.length < 1 || p.chunkWords < 1 || p.bits < 8 || p.bits > 64) {
    throw planError("a vector and a chunk have words, of 8 to 64 bits");
  }
  const least = Math.floor((p.clients + p.colluding) / 2) + 1;
  if (p.colluding < 0 || p.threshold < least || p.threshold > p.clients) {
    throw planError(`the threshold is from ${least} to ${p.clients}`);
  }
  if (p.minClients < p.colluding + 2 || p.minClients > p.clients) {
    throw planError("a sum holds two clients that do not collude, and at most all");
  }
}

export class Context {
  /** `session` is a context as in vector.schema.json: bytes are hex. */
  constructor(session) {
    const given = session.parameters;
    if (given === undefined || !Array.isArray(session.roster)) {
      throw usageError("a session has parameters and a roster");
    }
    this.clients = given.clients;
    this.length = given.length;
    this.bits = given.word_bits;
    this.chunkWords = given.chunk_words;
    this.threshold = given.threshold;
    this.minClients = given.min_clients;
    this.colluding = given.max_colluding;
    checkParameters(this);

    this.names = session.roster.map(([name]) => name);
    this.identities = session.roster.map(([, key]) => hex(key, 32, "a public key"));
    const { clients, threshold, minClients, length, chunkWords } = this;
    if (this.names.length !== clients) {
      throw usageError(`the roster has ${this.names.length} clients, not ${clients}`);
    }
    if (!this.identities.every(isPublicKey)) {
      throw usageError("a key in the roster is no point, or one of small order");
    }
    if (!this.names.every((name) => typeof name === "string")) {
      throw usageError("a name in the roster is text");
    }
    const keys = this.identities.map((key) => key.toString("hex"));
    if (new Set(this.names).size < clients || new Set(keys).size < clients) {
      throw usageError("a name or a key stands twice in the roster");
    }

    this.needed = Math.max(threshold, minClients);
    this.chunks = Math.ceil(length / chunkWords);
    this.ctx = hash(
      `${SPEC} ctx`,
      hex(session.plan_hash, 32, "plan_hash"),
      hex(session.run_id, 16, "run_id"),
      counter(session.round, "round"),
      counter(session.attempt, "attempt"),
      this.names.map((name, i) => [name, this.identities[i]]),
      hex(session.model_hash, 32, "model_hash"),
      [...PARAMETERS.map((name) => this[name]), "complete", "x25519"],
    );
  }

  /** How many words chunk `index` holds. */
  wordsIn(index) {
    return Math.min(this.chunkWords, this.length - index * this.chunkWords);
  }
}
