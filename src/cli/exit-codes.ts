/** What each way to fail is to a shell; `docs/cli.md` has the table. Above 63 they are those of sysexits(3) where one fits. */
import { FailureError } from "../volume/failure.ts";
import type { Failure, FailureCode } from "../volume/protocol.ts";

export const exitCodes: Readonly<Record<FailureCode, number>> = {
  "not-mounted": 2,
  usage: 64,
  replica: 66,
  "no-fuse": 69,
  internal: 70,
  mountpoint: 73,
  busy: 75,
  lost: 75,
  "not-root": 77,
  identity: 78,
  quorum: 79,
  adopt: 80,
  state: 81,
};

/** Prints one line and sets the exit code. Anything but a `FailureError` is a bug, and shown with its stack. */
export function fail(error: unknown): void {
  const failure: Failure | null = error instanceof FailureError ? error.failure : null;
  if (failure === null) console.error(error);
  else console.error(`chiron: ${failure.message.replaceAll(/\s*\n\s*/g, " ")}`);
  process.exitCode = failure === null ? exitCodes.internal : exitCodes[failure.code];
}
