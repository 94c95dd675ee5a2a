/**
 * What was written to an NFS server but not committed. The server may lose it when it restarts, and says so by another
 * write verifier. Copies are kept until the COMMIT, so that lost writes are written again, in their order; past a bound
 * files are committed early. `EIO` if what was lost cannot be written again.
 *
 * - `recover` runs after each reconnection, before any other call is sent: nobody reads a server that has forgotten.
 * - A file that is cut or gets a hole takes what was written there with it: `truncate`, or a commit before and after.
 * - A file's kept writes are in the order in which they were answered; overlapping writes are never in flight together
 *   (the caller's locks see to that), so writing them again in that order ends in the same bytes.
 */
import { type FileHandle, Found, type NfsProtocol, type OpenState, type WriteResult } from "../nfs/protocol.ts";
import { EIO, ESTALE } from "../util/errno.ts";

interface KeptWrite {
  readonly position: number;
  data: Buffer;
  /** Of the server instance that has it. */
  verifier: string;
}

class UncommittedFile {
  readonly handle: FileHandle;
  state: OpenState | null;
  kept: KeptWrite[] = [];
  bytes = 0;
  inFlight = 0;
  /** Resolves what waits until no write is in flight. */
  idle: (() => void) | null = null;
  /** A COMMIT on its way; others join the next one. */
  committing: Promise<number> | null = null;
  /** Lost writes are being written again: new ones wait. */
  rewriting: Promise<number> | null = null;
  /** How often that was begun. */
  rewrites = 0;

  constructor(handle: FileHandle, state: OpenState | null) {
    this.handle = handle;
    this.state = state;
  }
}

export interface UnstableBounds {
  /** Files are committed in the background from here on. */
  readonly softBytes: number;
  /** Writers wait from here on. */
  readonly hardBytes: number;
}

const defaultBounds: UnstableBounds = { softBytes: 32 << 20, hardBytes: 96 << 20 };
const commitTries = 10;

export class NfsUnstable {
  readonly #protocol: NfsProtocol;
  readonly #bounds: UnstableBounds;
  readonly #files = new Map<string, UncommittedFile>();
  #bytes = 0;
  #recovery: Promise<unknown> = Promise.resolve();
  #recovering = false;

  constructor(protocol: NfsProtocol, bounds: UnstableBounds = defaultBounds) {
    this.#protocol = protocol;
    this.#bounds = bounds;
  }

  /** Bytes that are kept. */
  get bytes(): number {
    return this.#bytes;
  }

  /** One WRITE by `protocol` (which bounds its time); answers how many bytes the server took. */
  async write(
    protocol: NfsProtocol,
    handle: FileHandle,
    state: OpenState | null,
    data: Uint8Array,
    position: number,
  ): Promise<number> {
    const file = this.#file(handle, state);
    while (file.rewriting !== null) await file.rewriting;
    file.inFlight++;
    const result: WriteResult = { stable: false, verifier: "" };
    const written = await protocol.write(handle, state, data, position, result);
    if (written > 0 && !result.stable) this.#keep(file, data.subarray(0, written), position, result.verifier);
    this.#ended(file);
    if (this.#bytes > this.#bounds.softBytes) {
      const early = this.#commitEarly(file);
      if (this.#bytes > this.#bounds.hardBytes) await early;
    }
    return written;
  }

  /** Everything written to this file so far is on stable storage when this answers 0. */
  async commit(handle: FileHandle): Promise<number> {
    await this.#files.get(keyOf(handle))?.committing; // one that was sent before may not cover all of it
    const file = this.#files.get(keyOf(handle));
    return file === undefined ? 0 : this.#commitOnce(file);
  }

  /** Cuts the file at this size by `run`: what was written beyond is not to come back. */
  async truncate(handle: FileHandle, size: number, run: () => Promise<number>): Promise<number> {
    const file = this.#files.get(keyOf(handle));
    if (file === undefined) return run();
    while (file.rewriting !== null) await file.rewriting;
    file.inFlight++;
    const result = await run();
    if (result >= 0) this.#cut(file, size);
    this.#ended(file);
    return result;
  }

  #cut(file: UncommittedFile, size: number): void {
    const beyond = new Set(file.kept.filter((write) => write.position >= size));
    this.#forget(file, beyond);
    for (const write of file.kept) {
      const excess = write.position + write.data.length - size;
      if (excess <= 0) continue;
      write.data = write.data.subarray(0, -excess);
      file.bytes -= excess;
      this.#bytes -= excess;
    }
  }

  /** The same for all files. A file that is gone meanwhile (its handle is stale) needs nothing. */
  async commitAll(): Promise<number> {
    const results = await Promise.all([...this.#files.values()].map((file) => this.commit(file.handle)));
    for (const result of results) if (result < 0 && result !== -ESTALE) return result;
    return 0;
  }

  /** After a reconnection: finds out whether the server has lost anything, and writes it again. One after the other. */
  async recover(): Promise<void> {
    const recovery = this.#recovery.then(() => this.#recoverAll());
    this.#recovery = recovery;
    await recovery;
  }

  async #recoverAll(): Promise<void> {
    this.#recovering = true;
    const files = [...this.#files.values()];
    for (const file of files) {
      file.idle?.(); // writes that were in flight are held back until this is over
      file.idle = null;
    }
    await Promise.all(files.map((file) => this.#commitAndRewrite(file, true)));
    this.#recovering = false;
  }

  #file(handle: FileHandle, state: OpenState | null): UncommittedFile {
    const key = keyOf(handle);
    let file = this.#files.get(key);
    if (file === undefined) {
      file = new UncommittedFile(handle, state);
      this.#files.set(key, file);
    }
    file.state = state;
    return file;
  }

  /** A change that was in flight has been answered. */
  #ended(file: UncommittedFile): void {
    file.inFlight--;
    if (file.inFlight === 0) {
      file.idle?.();
      file.idle = null;
    }
    this.#dropIfDone(file);
  }

  #keep(file: UncommittedFile, data: Uint8Array, position: number, verifier: string): void {
    file.kept.push({ position, data: Buffer.from(data), verifier });
    file.bytes += data.length;
    this.#bytes += data.length;
  }

  /** The current file if it is large, the one that has waited longest otherwise. */
  #commitEarly(current: UncommittedFile): Promise<number> {
    const oldest = this.#files.values().next().value ?? current;
    const file = current.bytes * 4 > this.#bounds.softBytes ? current : oldest;
    return file.committing ?? this.#commitOnce(file);
  }

  #commitOnce(file: UncommittedFile): Promise<number> {
    file.committing ??= this.#commitAndRewrite(file, false).finally(() => {
      file.committing = null;
      this.#dropIfDone(file);
    });
    return file.committing;
  }

  /**
   * Several of these may be at work on one file. A COMMIT covers what was kept when it was sent, if nothing was being
   * written again from then until its answer: the server may have had older bytes in their place for a moment.
   */
  async #commitAndRewrite(file: UncommittedFile, urgent: boolean): Promise<number> {
    for (let tries = 0; tries < commitTries; ) {
      while (file.rewriting !== null) await file.rewriting;
      const { rewrites } = file;
      const covered = new Set(file.kept);
      if (covered.size === 0) return 0;
      const result: WriteResult = { stable: false, verifier: "" };
      const answer = await this.#protocol.commit(file.handle, result, urgent);
      if (answer === -ESTALE) this.#forget(file, covered);
      if (answer < 0) return answer;
      if (file.rewrites !== rewrites) continue;
      if ([...covered].every(({ verifier }) => verifier === result.verifier)) {
        this.#forget(file, covered);
        return 0;
      }
      const rewritten = await this.#rewriteOnce(file);
      if (rewritten < 0) return rewritten;
      tries++;
    }
    return -EIO;
  }

  /** New writes wait for it; whoever else needs it joins. */
  #rewriteOnce(file: UncommittedFile): Promise<number> {
    if (file.rewriting === null) {
      file.rewrites++;
      file.rewriting = this.#rewrite(file).finally(() => {
        file.rewriting = null;
      });
    }
    return file.rewriting;
  }

  /**
   * Writes all that is kept again, in its order: what is stable may lie over what was lost. Writes that were in flight come
   * after it: they have ended, or will be sent again after the recovery that is going on.
   */
  async #rewrite(file: UncommittedFile): Promise<number> {
    if (!this.#recovering && file.inFlight > 0) {
      await new Promise<void>((resolve) => {
        file.idle = resolve;
      });
    }
    const before = new Found();
    const got = await this.#protocol.getattr(file.handle, before, true);
    if (got < 0) return got;
    const result: WriteResult = { stable: false, verifier: "" };
    for (const write of [...file.kept]) {
      for (let at = 0; at < write.data.length; ) {
        const part = write.data.subarray(at);
        const position = write.position + at;
        const written = await this.#protocol.write(file.handle, file.state, part, position, result, true);
        if (written <= 0) return written < 0 ? written : -EIO;
        at += written;
      }
      write.verifier = result.verifier;
    }
    // Nobody has changed the file: its time is what it was, as it may have been set, and made equal on all replicas.
    const mtime = { seconds: before.attr.mtime, nsec: before.attr.mtimeNsec };
    return this.#protocol.setattr(file.handle, null, { mtime }, before, true);
  }

  #forget(file: UncommittedFile, writes: ReadonlySet<KeptWrite>): void {
    file.kept = file.kept.filter((write) => {
      if (!writes.has(write)) return true;
      file.bytes -= write.data.length;
      this.#bytes -= write.data.length;
      return false;
    });
  }

  #dropIfDone(file: UncommittedFile): void {
    if (file.kept.length > 0 || file.inFlight > 0 || file.committing !== null) return;
    const key = keyOf(file.handle);
    if (this.#files.get(key) === file) this.#files.delete(key);
  }
}

function keyOf(handle: FileHandle): string {
  return handle.toString("latin1");
}
