/** The holder's end of the status page: makes the file, and looks at it while volume processes come and go. */
import { closeSync, openSync, readSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { decodeStatePage, STATE_PAGE_BYTES, STATE_PAGE_NAME, type StatePage } from "./state-page.ts";

export class StatePageReader {
  #fd = -1;

  /** `fresh`: of a mount that has no volume process yet. */
  open(directory: string, { fresh }: { readonly fresh: boolean }): void {
    const path = join(directory, STATE_PAGE_NAME);
    if (fresh) writeFileSync(path, Buffer.alloc(STATE_PAGE_BYTES), { mode: 0o600 });
    this.#fd = openSync(path, "r");
  }

  /** null if there is none. */
  read(): StatePage | null {
    if (this.#fd < 0) return null;
    const bytes = Buffer.alloc(STATE_PAGE_BYTES);
    return readSync(this.#fd, bytes, 0, STATE_PAGE_BYTES, 0) === STATE_PAGE_BYTES ? decodeStatePage(bytes) : null;
  }

  close(): void {
    if (this.#fd >= 0) closeSync(this.#fd);
    this.#fd = -1;
  }
}
