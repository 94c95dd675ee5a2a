/** `chiron status` */
import type { VolumeStatus } from "../replication/model.ts";
import { FailureError } from "../volume/failure.ts";
import { listMounts } from "../volume/registry.ts";
import { connectTo } from "./connection.ts";
import { statusExitCodes, statusText } from "./status-view.ts";
import { sleep } from "./terminal.ts";

const WATCH_PERIOD_MS = 1000;
const ANSWER_TIMEOUT_MS = 35_000;

export async function askStatus(mountpoint: string): Promise<VolumeStatus> {
  await using connection = await connectTo(mountpoint);
  return (await connection.client.call("status", { timeoutMs: ANSWER_TIMEOUT_MS })) as VolumeStatus;
}

export async function status(given: string | undefined, options: { json?: boolean; watch?: boolean }): Promise<void> {
  const mountpoint = given ?? onlyMount();
  if (options.watch) await watch(mountpoint, options.json ?? false);
  const now = await askStatus(mountpoint);
  console.log(options.json ? JSON.stringify(published(now), null, 2) : statusText(now, Date.now()));
  process.exitCode = statusExitCodes[now.state];
}

/** What `docs/cli.md` promises, and nothing that programs could come to rely on besides. */
function published({ volume, mountpoint, state, epoch, pid, minInSyncReplicas, replicas }: VolumeStatus) {
  return {
    ...{ volume, mountpoint, state, epoch, pid, minInSyncReplicas },
    replicas: replicas.map(({ name, url, state: its, reason, since, readable, progress, lastError, freeBytes }) => {
      return { name, url, state: its, reason, since, readable, progress, lastError, freeBytes };
    }),
  };
}

function onlyMount(): string {
  const [first, ...others] = listMounts();
  if (first === undefined)
    throw new FailureError("not-mounted", "Chiron has mounted nothing here: `chiron mount --help`");
  if (others.length > 0)
    throw new FailureError("usage", "Several volumes are mounted: name one (`chiron list` shows them)");
  return first.record.config.volume.mountpoint;
}

async function watch(mountpoint: string, json: boolean): Promise<never> {
  for (;;) {
    let text: string;
    try {
      const now = await askStatus(mountpoint);
      text = json ? JSON.stringify(published(now)) : statusText(now, Date.now());
    } catch (error) {
      if (!(error instanceof FailureError) || error.failure.code === "not-mounted") throw error;
      text = json ? JSON.stringify({ failure: error.failure }) : error.message;
    }
    const clear = !json && process.stdout.isTTY ? "\x1b[H\x1b[2J" : "";
    process.stdout.write(`${clear}${text}\n`);
    await sleep(WATCH_PERIOD_MS);
  }
}
