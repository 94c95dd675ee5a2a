/**
 * JSON lines on stderr (or any sink): a constant message and facts as fields. error = someone must act; warn =
 * degraded; info = state changed; debug = per operation.
 */
export type LogLevel = "debug" | "info" | "warn" | "error";
export type LogFields = Readonly<Record<string, unknown>>;

export interface Logger {
  debug(message: string, fields?: LogFields): void;
  info(message: string, fields?: LogFields): void;
  warn(message: string, fields?: LogFields): void;
  error(message: string, fields?: LogFields): void;
  /** A logger that adds these fields to each of its lines. */
  child(fields: LogFields): Logger;
}

const severity: Readonly<Record<LogLevel, number>> = { debug: 0, info: 1, warn: 2, error: 3 };

export function jsonLogger(sink: (line: string) => void, level: LogLevel = "info", bound: LogFields = {}): Logger {
  const log = (at: LogLevel) => (message: string, fields?: LogFields) => {
    if (severity[at] < severity[level]) return;
    sink(`${JSON.stringify({ time: new Date().toISOString(), level: at, message, ...bound, ...fields }, plain)}\n`);
  };
  return {
    debug: log("debug"),
    info: log("info"),
    warn: log("warn"),
    error: log("error"),
    child: (fields) => jsonLogger(sink, level, { ...bound, ...fields }),
  };
}

/** bigint as a decimal string, an Error as its message with its causes. */
function plain(_key: string, value: unknown): unknown {
  if (typeof value === "bigint") return value.toString();
  if (value instanceof Error) return errorText(value);
  return value;
}

/** The message of an error and of its causes, in one line. */
export function errorText(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return error.cause === undefined ? error.message : `${error.message}: ${errorText(error.cause)}`;
}

export const silentLogger: Logger = jsonLogger(() => {}, "error");
