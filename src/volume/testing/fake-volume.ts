/**
 * A volume process without a volume: says what a real one says to its holder, and misbehaves when told to. Its
 * "ended" comes when the file `unmounted` appears in the state directory, as the fake kernel of the tests makes it.
 *
 * The volume's name tells how: "fails", "dies-at-start", "slow". Calls: `resync` with replica "die" kills the process,
 * "die-in-call" does so in a call of replica 1, "hang" keeps its loop busy in one, "stop" stops it.
 */
import { existsSync, openSync } from "node:fs";
import { join } from "node:path";
import { mapShared } from "../../posix/memory.ts";
import { linkToHolder } from "../holder-link.ts";
import { STATE_PAGE_BYTES, STATE_PAGE_NAME, StatePageWriter } from "../state-page.ts";

let page: StatePageWriter | null = null;
let started: { readonly resumed: boolean; readonly avoid: readonly string[] } | null = null;

const link = linkToHolder({
  start({ config, resumed, avoid }) {
    started = { resumed, avoid };
    const memory = mapShared(
      openSync(join(config.stateDirectory, STATE_PAGE_NAME), "r+"),
      STATE_PAGE_BYTES,
      "read-write",
    );
    if (typeof memory === "number") throw new Error(`mmap: ${memory}`);
    page = new StatePageWriter(memory);
    page.attach(process.pid);
    if (config.volume === "dies-at-start") process.exit(7);
    if (config.volume === "dies-when-resumed" && resumed) process.exit(7);
    if (config.volume === "fails") {
      link.send({ type: "failed", failure: { code: "quorum", message: "one replica is missing" } });
      return;
    }
    link.send({ type: "ready", volumeId: "id-1" });
    page.rest();
    setInterval(() => {
      if (!existsSync(join(config.stateDirectory, "unmounted"))) return;
      link.send({ type: "ended" });
      link.release();
      process.exit(0);
    }, 5);
  },
  mounted() {},
  call({ id, method, params }) {
    if (method === "resync" && params.replica === "die-in-call" && page !== null) page.loopCalls(1)[0] = 1;
    if (method === "resync" && params.replica?.startsWith("die") === true) process.kill(process.pid, "SIGKILL");
    if (method === "resync" && params.replica === "stop") process.kill(process.pid, "SIGSTOP");
    if (method === "resync" && params.replica === "hang") {
      page?.wake();
      if (page !== null) page.loopCalls(1)[0] = 1;
      for (;;);
    }
    if (method === "resync") link.send({ type: "progress", id, progress: 50 });
    if (method === "verify") link.send({ type: "error", id, failure: { code: "replica", message: "no such replica" } });
    else link.send({ type: "result", id, value: { pid: process.pid, ...started } });
  },
});
