// SPDX-License-Identifier: Apache-2.0
/**
 * What can be wrong, and whose fault it is (SPEC section 6). `kind` is one of the
 * names in protocols/CONFORMANCE.md; `culprit` is a name from the roster.
 */
export class MaskingError extends Error {
  constructor(kind, message, culprit = undefined) {
    super(message);
    this.name = kind;
    this.kind = kind;
    this.culprit = culprit;
  }
}

export const protocolError = (message) =>
  new MaskingError("ProtocolError", message);
export const planError = (message) => new MaskingError("PlanError", message);
export const usageError = (message) => new MaskingError("UsageError", message);
export const refused = (message) => new MaskingError("Refused", message);
export const tooFewClients = (message) =>
  new MaskingError("TooFewClients", message);
export const faultyAggregator = (message) =>
  new MaskingError("FaultyAggregator", message);
export const faultyClient = (culprit, message) =>
  new MaskingError("FaultyClient", `${culprit}: ${message}`, culprit);
