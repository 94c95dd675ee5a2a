/** JSON lines over a stream: cuts what arrives into lines, of which none may be longer than `maxBytes`. */
import { StringDecoder } from "node:string_decoder";

export class LineTooLongError extends Error {
  override readonly name = "LineTooLongError";
}

export class LineReader {
  readonly #decoder = new StringDecoder("utf8");
  readonly #maxLength: number;
  #rest = "";

  constructor(maxLength: number) {
    this.#maxLength = maxLength;
  }

  /** The lines that are complete with this chunk. Throws `LineTooLongError`, after which the reader is of no use. */
  push(chunk: Buffer): string[] {
    const lines = (this.#rest + this.#decoder.write(chunk)).split("\n");
    this.#rest = lines.pop() ?? "";
    if (this.#rest.length > this.#maxLength) throw new LineTooLongError(`A line is longer than ${this.#maxLength}`);
    return lines.filter((line) => line.trim() !== "");
  }
}
