/** `chiron resync`: starts it, and follows it by the volume's status, so that it can be looked on at from anywhere. */
import type { ReplicaStatus } from "../replication/model.ts";
import { FailureError } from "../volume/failure.ts";
import { connectTo } from "./connection.ts";
import { askStatus } from "./status-command.ts";
import { progressText } from "./status-view.ts";
import { LiveLine, paint, sleep } from "./terminal.ts";

const PERIOD_MS = 200;
const ENABLE_MS = 2000;
/** A replica that is neither in sync nor being synced for so long is not going to be. */
const PATIENCE_MS = 15_000;

export async function resync(
  mountpoint: string,
  name: string | undefined,
  options: { full?: boolean; wait: boolean },
): Promise<void> {
  const { replicas } = await askStatus(mountpoint);
  if (name !== undefined && !replicas.some((replica) => replica.name === name)) {
    throw new FailureError(
      "usage",
      `There is no replica "${name}": ${replicas.map((replica) => replica.name).join(", ")}`,
    );
  }
  const wanted = await wantedReplicas(mountpoint, name);
  if (wanted.length === 0) return;
  {
    await using connection = await connectTo(mountpoint);
    for (const replica of wanted) {
      if (replica.state === "InSync" && !options.full) continue;
      await connection.client.call("resync", { params: { replica: replica.name, full: options.full ?? false } });
    }
  }
  if (!options.wait) return;
  let failed = false;
  for (const replica of wanted) failed = !(await follow(mountpoint, replica.name)) || failed;
  if (failed) process.exitCode = 1;
}

/** Those that are behind and are to come back. One that has just been enabled takes a moment to show it. */
async function wantedReplicas(mountpoint: string, name: string | undefined): Promise<readonly ReplicaStatus[]> {
  for (const end = performance.now() + ENABLE_MS; ; await sleep(PERIOD_MS)) {
    const { replicas } = await askStatus(mountpoint);
    if (name !== undefined) return replicas.filter((replica) => replica.name === name);
    const behind = replicas.filter((replica) => replica.state !== "InSync");
    const wanted = behind.filter((replica) => replica.reason !== "Disabled" || replica.state === "Syncing");
    if (wanted.length > 0) return wanted;
    if (behind.length > 0 && performance.now() < end) continue;
    const disabled = behind.map((replica) => replica.name).join(", ");
    console.log(behind.length === 0 ? "Every replica is in sync." : `Disabled, and left alone: ${disabled}`);
    return [];
  }
}

/** Shows how a replica comes back; false if it does not. `quiet`: only waits. */
export async function follow(mountpoint: string, name: string, quiet = false): Promise<boolean> {
  const line = quiet ? { show: () => {}, final: () => {} } : new LiveLine();
  let lastMove = performance.now();
  for (;;) {
    const { replicas } = await askStatus(mountpoint);
    const replica = replicas.find((each) => each.name === name);
    if (replica === undefined) throw new FailureError("replica", `Replica "${name}" was removed`);
    if (replica.state === "InSync") {
      line.final(`${name}  ${paint("green", "in sync")}`);
      return true;
    }
    if (replica.state === "Syncing") lastMove = performance.now();
    else if (performance.now() - lastMove > PATIENCE_MS) {
      line.final(`${name}  ${paint("red", "not in sync")}  ${replica.lastError ?? ""}`);
      return false;
    }
    line.show(`${name}  ${waitingText(replica)}`);
    await sleep(PERIOD_MS);
  }
}

function waitingText(replica: ReplicaStatus): string {
  if (replica.state === "Syncing" && replica.progress !== null) return progressText(replica.progress);
  return replica.state === "Syncing" ? "syncing" : "waiting";
}
