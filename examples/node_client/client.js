// SPDX-License-Identifier: Apache-2.0
/**
 * One client in one context: a state for each step (SPEC 1, 4 and 5).
 *
 * Each state serves once. It gives its secrets away before it looks at the message
 * (spend before check), so a second message, or one after an error, meets a state
 * that holds nothing any more.
 */
import { encode } from "./cbor.js";
import {
  boxInfo, checkCohort, checkInboxGood, checkInboxSigned, checkSignatures,
  checkStatement, commitShare,
} from "./checks.js";
import {
  SPEC, checkedRandom, concat, derive, hash, publicHalf, same, sign, treeRoot,
} from "./crypto.js";
import { usageError } from "./errors.js";
import { seal } from "./hpke.js";
import { KEY_SHARE, SELF_SHARE, parse, write } from "./messages.js";
import { elements, le32, shareAt } from "./shamir.js";
import { addStream, cut, fromBigInts, pack, streamKey, zeros } from "./words.js";

/** What step 1 derives from its random bytes (SPEC 4.2). */
export function keysOfContext(ctx, random) {
  const [beta, z] = elements(ctx, checkedRandom(random), "secrets", 2);
  const sealSecret = derive(ctx, random, "seal key");
  const maskSecret = derive(ctx, le32(z), "mask key");
  return {
    beta,
    z,
    sealSecret,
    sealKey: publicHalf("X25519", sealSecret),
    maskSecret,
    maskKey: publicHalf("X25519", maskSecret),
    selfSeed: derive(ctx, le32(beta), "self mask"),
  };
}

/** Coefficients of the self mask's polynomial, then of the mask key's (SPEC 4.3). */
export const coefficients = (ctx, random, count) =>
  elements(ctx, checkedRandom(random), "coefficients", count);

/** The seed of a pair, from what X25519 gave (SPEC 4.2). */
export const pairSeed = (ctx, agreed, cohort, i, j) =>
  derive(ctx, agreed, "pair mask", cohort, Math.min(i, j), Math.max(i, j));

/** A state that serves once. */
class Step {
  #held;

  constructor(held) {
    this.#held = held;
  }

  /** Takes the secrets out, before anything is checked. */
  spend() {
    const held = this.#held;
    this.#held = undefined;
    if (held === undefined) {
      throw usageError("this step is over");
    }
    return held;
  }
}

/**
 * Step 1: announces the keys of this context.
 *
 * `journal.started()` records, durably, that the context has begun;
 * `journal.spent()` that its vector has. Both throw where that may not be.
 */
export function start(context, client, identity, random, journal) {
  if (!Number.isInteger(client) || client < 0 || client >= context.clients) {
    throw usageError("this client is not in the roster");
  }
  if (!same(publicHalf("Ed25519", identity), context.identities[client])) {
    throw usageError(`the identity is not that of ${context.names[client]}`);
  }
  const keys = keysOfContext(context.ctx, random);
  journal.started();
  const { sealKey, maskKey } = keys;
  const signature = sign(
    identity, `${SPEC} advertise`, context.ctx, client, sealKey, maskKey,
  );
  const message = write("Advertise", context, { client, sealKey, maskKey, signature });
  return [message, new Announced({ context, client, identity, journal, keys })];
}

/** Waits for CohortKeys, answers with SealedShares (step 2). */
class Announced extends Step {
  cohort(data, random) {
    const held = this.spend();
    const { context, client, identity, keys } = held;
    const message = parse("CohortKeys", data, context);
    const degree = context.threshold - 1;
    const terms = coefficients(context.ctx, random, 2 * degree);
    const cohort = cohortOf(context, message.rows);
    const own = new Map(); // the two shares for each member
    for (const to of cohort.members) {
      own.set(to, {
        self: le32(shareAt(keys.beta, terms.slice(0, degree), to + 1)),
        key: le32(shareAt(keys.z, terms.slice(degree), to + 1)),
      });
    }
    const boxes = checkCohort(context, message, { client, ...keys }, (key, to) => {
      const { self, key: keyShare } = own.get(to);
      const info = boxInfo(context.ctx, cohort.hash, client, to);
      return seal(key, info, concat(self, keyShare));
    });
    const rows = cohort.members.map((to, i) => [
      to,
      boxes[i],
      commitShare(SELF_SHARE, context, client, to, own.get(to).self),
      commitShare(KEY_SHARE, context, client, to, own.get(to).key),
    ]);
    const commitment = hash(`${SPEC} self`, context.ctx, client, le32(keys.beta));
    const root = treeRoot(`${SPEC} shares`, rows.map(encode));
    const signature = sign(
      identity, `${SPEC} shares`, context.ctx, cohort.hash, client, commitment, root,
    );
    const fields = { client, commitment, rows, signature };
    const next = new Dealt({ ...held, cohort, ownShares: own.get(client) });
    return [write("SealedShares", context, fields), next];
  }
}

function cohortOf(context, rows) {
  const announced = rows.map((row) => row.slice(0, 3)); // without the signature
  return {
    members: rows.map(([client]) => client),
    maskKeys: new Map(rows.map(([client, , maskKey]) => [client, maskKey])),
    hash: hash(`${SPEC} cohort`, context.ctx, announced),
  };
}

/** Waits for its Inbox and its vector, answers with chunks and MaskedInput (step 3). */
class Dealt extends Step {
  /** `words` are BigInts below 2^b; `attached` is empty or 32 bytes. */
  inbox(data, words, claim, attached) {
    const held = this.spend();
    const { context, client, identity, journal, cohort, keys } = held;
    if (words.length !== context.length || claim.length !== 32) {
      throw usageError("a vector has the plan's length, a claim 32 bytes");
    }
    if (attached.length !== 0 && attached.length !== 32) {
      throw usageError("an attached root is empty or 32 bytes");
    }
    const vector = fromBigInts(words, context.bits);
    const message = parse("Inbox", data, context, client);
    checkInboxSigned(context, message, client, cohort);
    const dealt = checkInboxGood(context, message, client, cohort, keys);

    const members = message.rows.map(([dealer]) => dealer);
    const dealers = hash(`${SPEC} dealers`, context.ctx, members);
    const streams = [[streamKey(keys.selfSeed), 1]];
    for (const [dealer, { agreed }] of dealt) {
      const seed = pairSeed(context.ctx, agreed, cohort.hash, client, dealer);
      streams.push([streamKey(seed), dealer > client ? 1 : -1]);
    }
    const chunks = mask(context, vector, streams);
    const leaves = chunks.map((chunk) => hash(`${SPEC} chunks data`, chunk));
    const root = treeRoot(`${SPEC} chunks`, leaves);
    const signature = sign(
      identity, `${SPEC} input`,
      context.ctx, cohort.hash, client, root, dealers, claim, attached,
    );

    journal.spent(); // before the first masked chunk leaves (SPEC 7)
    const messages = chunks.map((packed, index) =>
      write("Chunk", context, { client, index, packed }),
    );
    const fields = { client, root, dealers, claim, attached, signature };
    messages.push(write("MaskedInput", context, fields));

    const shares = new Map([[client, held.ownShares]]);
    dealt.forEach(({ self, key }, dealer) => shares.set(dealer, { self, key }));
    const sent = { root, claim, attached };
    const mine = { client, cohort: cohort.hash, dealers, members, ...sent };
    return [messages, new Sent({ context, client, identity, members, shares, mine })];
  }
}

/** The vector under its self mask and its pair masks, as packed chunks (SPEC 4.4). */
function mask(context, vector, streams) {
  return Array.from({ length: context.chunks }, (_, index) => {
    const from = index * context.chunkWords;
    const sum = zeros(context.bits, context.wordsIn(index));
    sum.set(vector.subarray(from, from + sum.length));
    streams.forEach(([key, sign]) => addStream(sum, key, index, sign));
    return pack(cut(sum, context.bits), context.bits);
  });
}

/** Waits for the Statement, answers with an Agreement (step 4). */
class Sent extends Step {
  statement(data) {
    const held = this.spend();
    const { context, client, identity, mine } = held;
    const statement = parse("Statement", data, context);
    checkStatement(context, statement, mine);
    const { cohort, dealers, rows } = statement;
    const signature = sign(
      identity, `${SPEC} statement`, context.ctx, cohort, dealers, rows,
    );
    const message = write("Agreement", context, { client, signature });
    return [message, new Agreed({ ...held, statement })];
  }
}

/** Waits for Signatures, answers with a Reveal, and is done (step 5). */
class Agreed extends Step {
  signatures(data) {
    const { context, client, identity, members, shares, statement } = this.spend();
    const message = parse("Signatures", data, context);
    checkSignatures(context, message, statement);
    const survivors = new Set(statement.rows.map(([survivor]) => survivor));
    // One kind of share for each dealer (SPEC 6.6): U3 alone decides which.
    const rows = members.map((dealer) =>
      survivors.has(dealer)
        ? [dealer, SELF_SHARE, shares.get(dealer).self]
        : [dealer, KEY_SHARE, shares.get(dealer).key],
    );
    const signature = sign(identity, `${SPEC} reveal`, context.ctx, client, rows);
    return [write("Reveal", context, { client, rows, signature })];
  }
}
