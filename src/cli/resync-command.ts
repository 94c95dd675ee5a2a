/** `chiron resync`: starts it, and follows it by the volume's status, so that it can be looked on at from anywhere. */
import type { ReplicaStatus } from "../replication/model.ts";
import { FailureError } from "../volume/failure.ts";
import { connectTo } from "./connection.ts";
import { askStatus } from "./status-command.ts";
import { progressText } from "./status-view.ts";
import { LiveLine, paint, sleep } from "./terminal.ts";

const PERIOD_MS = 200;
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
  const behind = replicas.filter((replica) =>
    name === undefined ? replica.state !== "InSync" : replica.name === name,
  );
  const wanted = behind.filter((replica) => name !== undefined || replica.reason !== "Disabled");
  if (wanted.length === 0) {
    console.log("Every replica is in sync.");
    return;
  }
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

async function follow(mountpoint: string, name: string): Promise<boolean> {
  const line = new LiveLine();
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
