/**
 * Copies that have diverged because mounts were forced: what only the losing one holds is kept in the volume, under names
 * that say so, before that copy is made like the others. At a mount, while nothing is served; a copy that turns up later is
 * left alone until the next mount. The intents say what a crash in the middle may have left on some members only.
 */
import type { TreeObject } from "../replica/replica.ts";
import { keepConflicts } from "../replication/conflict.ts";
import type { Throttle } from "../replication/throttle.ts";
import type { TreeNode } from "../replication/tree.ts";
import { errnoName } from "../util/errno.ts";
import type { Logger } from "../util/logger.ts";
import { FailureError } from "./failure.ts";
import type { Volume } from "./volume.ts";

const SHOWN = 5;

export interface DivergedDeps {
  readonly volume: Volume;
  readonly throttle: Throttle;
  readonly log: Logger;
  readonly tell: (replica: string, message: string) => void;
}

export async function keepDiverged({ volume, throttle, log, tell }: DivergedDeps): Promise<void> {
  const { opened, membership, fanOut } = volume;
  const { arbiter, records, config } = opened;
  const signal = new AbortController().signal;
  for (const name of records === null ? [] : arbiter.claimed.diverged) {
    const index = config.replicas.findIndex((replica) => replica.name === name);
    const loser = opened.replicas[index];
    if (loser == null || membership.inSync.includes(index)) continue; // the witness holds no data
    log.warn("A replica holds changes that the others never had: they are kept", { replica: name });
    await loser.connect({ signal: AbortSignal.timeout(config.deadlineMs) });
    try {
      const conflicts = await keepConflicts({
        members: membership.inSync.map((member) => fanOut.replica(member)),
        loser,
        beforeKeep: (directory) => intend(volume, directory),
        time: new Date(),
        throttle,
        signal,
      });
      await volume.intents.recordUnknown(name); // all that it has is to be compared, by whichever process does it
      await records?.settle({ name, files: opened.files(name) });
      for (const { path, keptAs } of conflicts) log.warn("Conflict", { replica: name, path, keptAs });
      const some = conflicts.slice(0, SHOWN).map(({ keptAs }) => keptAs);
      const rest = conflicts.length > SHOWN ? ` and ${conflicts.length - SHOWN} more (see the log)` : "";
      tell(
        name,
        conflicts.length === 0
          ? `Replica "${name}" was used apart from the others, but holds no file that they lack`
          : `Replica "${name}" was used apart from the others; its versions of files are kept as ${some.join(", ")}${rest}`,
      );
    } finally {
      await loser.disconnect();
    }
  }
}

/** This directory, and those above it, may get new entries. */
async function intend({ table: { tree }, intents }: Volume, directory: TreeObject): Promise<void> {
  const names: string[] = [];
  for (let at = directory; at.parent !== null; at = at.parent) names.unshift(at.name);
  const pinned: TreeNode[] = [];
  let node = tree.root;
  try {
    for (const name of ["", ...names]) {
      if (name !== "") {
        node = tree.pin(node, name);
        pinned.push(node);
      }
      const result = await intents.entries(node);
      if (result < 0) throw new FailureError("replica", `Conflicts cannot be kept: ${errnoName(result)}; see the log`);
    }
  } finally {
    for (const each of pinned.toReversed()) tree.unpin(each);
  }
}
