// SPDX-License-Identifier: Apache-2.0
/** Every check of a client and whom it blames (SPEC 6.1 to 6.5, and 7). */
import { encode } from "./cbor.js";
import { SPEC, hash, inTree, same, verify, x25519 } from "./crypto.js";
import {
  MaskingError, faultyAggregator, faultyClient, tooFewClients,
} from "./errors.js";
import { open } from "./hpke.js";
import { KEY_SHARE, SELF_SHARE } from "./messages.js";

const SHARE_LABELS = {
  [SELF_SHARE]: `${SPEC} self share`,
  [KEY_SHARE]: `${SPEC} key share`,
};

/** The commitment to one share (SPEC 4.6). */
export const commitShare = (kind, context, dealer, to, share) =>
  hash(SHARE_LABELS[kind], context.ctx, dealer, to, share);

/** What binds a box to its place (SPEC 4.5). */
export const boxInfo = (ctx, cohort, dealer, to) =>
  encode([`${SPEC} box`, ctx, cohort, dealer, to]);

const blameAggregator = (holds, message) => {
  if (!holds) {
    throw faultyAggregator(message);
  }
};

const enough = (count, least, what) => {
  if (count < least) {
    throw tooFewClients(`${count} ${what}, ${least} are needed`);
  }
};

/** Runs `action`; what a primitive refuses is the fault of client `number`. */
function blaming(context, number, what, action) {
  try {
    return action();
  } catch (error) {
    if (error instanceof MaskingError && error.kind === "Refused") {
      throw faultyClient(context.names[number], `${what}: ${error.message}`);
    }
    throw error;
  }
}

/** 6.1. `seal(key, to)` makes the box for one client; returns the boxes. */
export function checkCohort(context, message, own, seal) {
  const { rows } = message;
  for (const [client, sealKey, maskKey, signature] of rows) {
    blameAggregator(
      verify(
        context.identities[client], signature,
        `${SPEC} advertise`, context.ctx, client, sealKey, maskKey,
      ),
      `the keys of ${context.names[client]} are not signed`,
    );
  }
  for (const [client, sealKey, maskKey] of rows) {
    if (same(sealKey, maskKey)) {
      throw faultyClient(context.names[client], "one key for both purposes");
    }
  }
  enough(rows.length, context.needed, "clients announced keys");
  const mine = rows.find(([client]) => client === own.client);
  blameAggregator(
    mine !== undefined && same(mine[1], own.sealKey) && same(mine[2], own.maskKey),
    "my own keys are missing or others",
  );
  return rows.map(([client, sealKey]) =>
    client === own.client
      ? Buffer.alloc(0)
      : blaming(context, client, "its sealing key", () => seal(sealKey, client)),
  );
}

/** 6.2: each row is what its dealer signed for this reader. */
export function checkInboxSigned(context, message, own, cohort) {
  const { rows } = message;
  const place = cohort.members.indexOf(own);
  blameAggregator(
    rows.every(([dealer]) => cohort.members.includes(dealer)),
    "a dealer is not in the cohort",
  );
  blameAggregator(
    rows.some(([dealer]) => dealer === own),
    "I am not among the dealers",
  );
  enough(rows.length, context.needed, "dealers");
  for (const [dealer, , box, selfCommitment, keyCommitment, path, root] of rows) {
    const leaf = encode([own, box, selfCommitment, keyCommitment]);
    blameAggregator(
      inTree(`${SPEC} shares`, cohort.members.length, place, leaf, path, root),
      `the row of ${context.names[dealer]} is not in its tree`,
    );
  }
  for (const [dealer, commitment, , , , , root, signature] of rows) {
    blameAggregator(
      verify(
        context.identities[dealer], signature,
        `${SPEC} shares`, context.ctx, cohort.hash, dealer, commitment, root,
      ),
      `the shares of ${context.names[dealer]} are not signed`,
    );
  }
}

/**
 * 6.3: the shares and the agreed secret of each other dealer, as a map from its
 * number to {self, key, agreed}.
 */
export function checkInboxGood(context, message, own, cohort, keys) {
  const dealt = new Map();
  for (const [dealer, , box, selfCommitment, keyCommitment] of message.rows) {
    if (dealer === own) {
      continue;
    }
    const name = context.names[dealer];
    const info = boxInfo(context.ctx, cohort.hash, dealer, own);
    const plain = blaming(context, dealer, "its box", () =>
      open(keys.sealSecret, info, box),
    );
    const self = plain.subarray(0, 32);
    const key = plain.subarray(32);
    const committed =
      same(commitShare(SELF_SHARE, context, dealer, own, self), selfCommitment) &&
      same(commitShare(KEY_SHARE, context, dealer, own, key), keyCommitment);
    if (!committed) {
      throw faultyClient(name, "a share is not the one it committed to");
    }
    const agreed = blaming(context, dealer, "its mask key", () =>
      x25519(keys.maskSecret, cohort.maskKeys.get(dealer)),
    );
    dealt.set(dealer, { self, key, agreed });
  }
  return dealt;
}

/** 6.4: `mine` is what this client sent and what it saw of the round. */
export function checkStatement(context, message, mine) {
  const { rows } = message;
  blameAggregator(
    same(message.cohort, mine.cohort) && same(message.dealers, mine.dealers),
    "the statement is about another cohort or other dealers",
  );
  blameAggregator(
    rows.every(([client]) => mine.members.includes(client)),
    "a survivor has dealt no shares",
  );
  const row = rows.find(([client]) => client === mine.client);
  blameAggregator(
    row !== undefined &&
      same(row[1], mine.root) &&
      same(row[2], mine.claim) &&
      same(row[3], mine.attached),
    "the statement does not hold what I sent",
  );
  enough(rows.length, context.needed, "survivors");
}

/** 6.5: `statement` is the very one this client signed, or is shown (7). */
export function checkSignatures(context, message, statement) {
  const survivors = new Set(statement.rows.map(([client]) => client));
  const { cohort, dealers, rows } = statement;
  blameAggregator(
    message.rows.every(([client]) => survivors.has(client)),
    "a signer is not in the statement",
  );
  for (const [client, signature] of message.rows) {
    blameAggregator(
      verify(
        context.identities[client], signature,
        `${SPEC} statement`, context.ctx, cohort, dealers, rows,
      ),
      `the signature of ${context.names[client]} does not hold`,
    );
  }
  enough(message.rows.length, context.threshold, "signatures");
}

/** 7: statement and signatures prove that this context cannot open `client`. */
export function checkOmission(context, client, statement, signatures) {
  blameAggregator(
    statement.rows.every(([survivor]) => survivor !== client),
    "the statement holds me, so its sum may be opened",
  );
  checkSignatures(context, signatures, statement);
}
