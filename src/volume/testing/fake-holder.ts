/** A holder over a fake kernel and a fake volume process, to be killed by a test. Its configuration comes as a message. */
import { closeSync, openSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { silentLogger } from "../../util/logger.ts";
import { runHolder } from "../holder-run.ts";
import type { HolderConfig } from "../registry.ts";

process.once("message", (message) => void hold((message as { readonly config: HolderConfig }).config));

async function hold(config: HolderConfig): Promise<void> {
  await runHolder(config, {
    logger: silentLogger,
    mounts: {
      open: () => openSync("/dev/null", "r+"),
      close: (fd) => closeSync(fd),
      mount: () => {},
      device: () => "0:53",
      users: () => ({ copies: 0, users: [] }),
      abort: () => {},
      unmount: async () => 0,
    },
    program: { program: fileURLToPath(new URL("./fake-volume.ts", import.meta.url)) },
    version: "0",
    canResend: true,
    options: { spare: false },
  });
  process.send?.("mounted");
}
