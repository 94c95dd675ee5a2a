/** A `Failure` of the protocol as an error, so that it travels through promises between process boundaries. */
import { errorText } from "../util/logger.ts";
import type { Failure, FailureCode } from "./protocol.ts";

export class FailureError extends Error {
  override readonly name = "FailureError";
  readonly failure: Failure;

  constructor(code: FailureCode, message: string, options: { readonly cause?: unknown } = {}) {
    super(message, options);
    this.failure = { code, message };
  }

  static from(failure: Failure): FailureError {
    return new FailureError(failure.code, failure.message);
  }
}

/** Whatever was thrown, as what is told to the other side. */
export function failureOf(error: unknown): Failure {
  return error instanceof FailureError ? error.failure : { code: "internal", message: errorText(error) };
}
