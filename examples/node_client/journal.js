// SPDX-License-Identifier: Apache-2.0
/**
 * What a client must still know after a crash (SPEC 1 and 7), as files in a folder of
 * its own: which contexts it started, and in which of them its vector was spent.
 *
 * A file is created exclusively and forced to disk before the client goes on, so the
 * second of two processes, or a process after a crash, is refused.
 */
import {
  closeSync, fsyncSync, mkdirSync, openSync, readFileSync, readdirSync, writeSync,
} from "node:fs";
import { join } from "node:path";
import { checkOmission } from "./checks.js";
import { Context } from "./context.js";
import { hash } from "./crypto.js";
import { MaskingError, usageError } from "./errors.js";
import { parse } from "./messages.js";

const STARTED = ".started.json";
const SPENT = ".spent.json";

function syncFolder(folder) {
  const handle = openSync(folder, "r");
  fsyncSync(handle);
  closeSync(handle);
}

function createDurably(folder, name, content) {
  let handle;
  try {
    handle = openSync(join(folder, name), "wx", 0o600);
  } catch (error) {
    if (error.code === "EEXIST") {
      throw usageError(`${name} exists: this client is out of that context`);
    }
    throw error;
  }
  writeSync(handle, JSON.stringify(content));
  fsyncSync(handle);
  closeSync(handle);
  syncFolder(folder);
}

function readRecord(path) {
  try {
    return JSON.parse(readFileSync(path, "utf8"));
  } catch {
    // Cut short by a crash: which vector it was is not known, so none may go out.
    throw usageError(`${path} cannot be read: a vector was spent, we know not which`);
  }
}

const sameRound = (a, b) =>
  a.plan_hash === b.plan_hash && a.run_id === b.run_id && a.round === b.round;

export class Journal {
  /**
   * `words` is the vector this client will mask in `session`; `proofs` are pairs of
   * a Statement and Signatures that leave it out of contexts it was spent in.
   */
  constructor(folder, session, client, words, proofs) {
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    this.folder = folder;
    this.session = session;
    this.client = client;
    this.proofs = proofs;
    this.context = new Context(session);
    // Equal words are one vector to us, and so is what one round asks for twice.
    this.vector = hash("node client vector", words.join()).toString("hex");
    this.name = this.context.ctx.toString("hex");
  }

  /** Before the first message: refuses a second start, and a spent vector. */
  started() {
    this.#refuseSpent();
    createDurably(this.folder, this.name + STARTED, { client: this.client });
  }

  /** Before the first masked chunk. */
  spent() {
    const { session, client, vector } = this;
    createDurably(this.folder, this.name + SPENT, { session, client, vector });
    // Once more: another context may have spent it since. Both may lose, two never win.
    this.#refuseSpent();
  }

  #refuseSpent() {
    for (const file of readdirSync(this.folder)) {
      if (file.endsWith(SPENT) && file !== this.name + SPENT) {
        const spent = readRecord(join(this.folder, file));
        if (spent.vector === this.vector || sameRound(spent.session, this.session)) {
          this.#requireProof(spent);
        }
      }
    }
  }

  /** SPEC 7: one of the proofs must show that the other context cannot open it. */
  #requireProof({ session, client }) {
    const context = new Context(session);
    let reason = usageError("this vector was spent in another context");
    for (const { statement, signatures } of this.proofs) {
      try {
        checkOmission(
          context,
          client,
          parse("Statement", statement, context),
          parse("Signatures", signatures, context),
        );
        return;
      } catch (error) {
        if (!(error instanceof MaskingError)) {
          throw error;
        }
        if (error.kind !== "ProtocolError") {
          reason = error; // a proof about that context, and no good one
        }
      }
    }
    throw reason;
  }
}
