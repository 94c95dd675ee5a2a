/**
 * Mounts whose holders are gone, found and brought back: by the descriptor that the node plugin keeps, a new holder
 * goes on where the old one was. Before it may read, the old volume process must be unable to: two on one descriptor
 * answer each other's requests.
 */
import { closeSync, readFileSync, readlinkSync } from "node:fs";
import { join } from "node:path";
import { sleep } from "../kube/informer.ts";
import { errorText, type Logger } from "../util/logger.ts";
import { ControlClient } from "../volume/control-client.ts";
import { controlSocket, listMounts, type RegistryEntry } from "../volume/registry.ts";
import { decodeStatePage, STATE_PAGE_NAME } from "../volume/state-page.ts";
import { askVault } from "./descriptor-vault.ts";
import { fuseType, mountAt, readMountTable } from "./mount-table.ts";

export interface RevivalOptions {
  readonly vaultSocket: string;
  readonly logger: Logger;
  /** Starts `holder-main adopt` on the descriptor, and resolves when it serves. */
  readonly adopt: (entry: RegistryEntry, fuseFd: number, predecessorPid: number) => Promise<void>;
  readonly periodMs?: number;
}

/** Looks again and again until `signal` aborts. */
export async function reviveMounts(options: RevivalOptions, signal: AbortSignal): Promise<void> {
  const { logger, periodMs = 1_000 } = options;
  /** Seen without a holder once: one that is just being replaced is left alone. */
  const suspected = new Set<string>();
  while (!signal.aborted) {
    for (const entry of listMounts()) {
      const { directory, record } = entry;
      if (record.state !== "mounted" || (await answers(directory))) {
        suspected.delete(directory);
        continue;
      }
      if (mountAt(readMountTable(), record.config.volume.mountpoint)?.type !== fuseType) continue;
      if (!suspected.has(directory)) {
        suspected.add(directory);
        continue;
      }
      try {
        await revive(entry, options);
        suspected.delete(directory);
      } catch (error) {
        logger.warn("cannot bring a mount back", { volume: record.config.volume.volume, error: errorText(error) });
      }
    }
    await sleep(periodMs, signal);
  }
}

async function revive(entry: RegistryEntry, { vaultSocket, logger, adopt }: RevivalOptions): Promise<void> {
  const { directory, record } = entry;
  const { volume } = record.config.volume;
  const fuseFd = await askVault(vaultSocket, directory);
  if (fuseFd === null) throw new Error("nobody has its descriptor any more: its users must be started again");
  try {
    const pid = volumeProcess(directory);
    await endProcess(pid);
    await adopt(entry, fuseFd, pid ?? 0);
    logger.info("mount brought back", { volume });
  } finally {
    closeSync(fuseFd);
  }
}

/** The volume process that served last, if it can still run. */
function volumeProcess(directory: string): number | null {
  try {
    const page = decodeStatePage(readFileSync(join(directory, STATE_PAGE_NAME)));
    const pid = page?.pid ?? 0;
    // The number may belong to somebody else by now.
    return pid > 0 && readlinkSync(`/proc/${pid}/fd/3`) === "/dev/fuse" ? pid : null;
  } catch {
    return null;
  }
}

async function endProcess(pid: number | null): Promise<void> {
  if (pid === null) return;
  try {
    process.kill(pid, "SIGKILL");
    // Gone, or with the signal delivered and on its way out of an uninterruptible call: it never runs again.
    for (let waited = 0; waited < 200; waited += 1) {
      if (/^State:\s+[ZXD]/m.test(readFileSync(`/proc/${pid}/status`, "utf8"))) return;
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  } catch {
    // It is gone.
  }
}

async function answers(directory: string): Promise<boolean> {
  try {
    const control = await ControlClient.connect(controlSocket(directory));
    control.close();
    return true;
  } catch {
    return false;
  }
}
