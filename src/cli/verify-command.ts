/** `chiron verify` */
import type { VerifyReport, WorkProgress } from "../volume/protocol.ts";
import { connectTo } from "./connection.ts";
import { LiveLine, paint, table } from "./terminal.ts";
import { formatBytes } from "./units.ts";

export async function verify(mountpoint: string, options: { repair?: boolean; json?: boolean }): Promise<void> {
  await using connection = await connectTo(mountpoint);
  const line = new LiveLine();
  const report = (await connection.client.call("verify", {
    params: { repair: options.repair ?? false },
    onProgress: (progress) => {
      const { filesDone, bytesDone } = progress as WorkProgress;
      if (!options.json) line.show(`${filesDone} files, ${formatBytes(bytesDone)} compared`);
    },
  })) as VerifyReport;
  const { differences, filesCompared, bytesCompared, repaired } = report;
  const left = differences.length - repaired;
  process.exitCode = left > 0 ? 1 : 0;
  if (options.json) {
    console.log(JSON.stringify(report, null, 2));
    return;
  }
  const compared = `${filesCompared} files, ${formatBytes(bytesCompared)} compared`;
  if (differences.length === 0) {
    line.final(`${paint("green", "All in-sync replicas are alike")}: ${compared}.`);
    return;
  }
  const outcome = repaired > 0 ? `, ${repaired} repaired` : left > 0 ? "; `--repair` makes them like the leader" : "";
  line.final(`${paint("red", `${differences.length} differences`)}${outcome}: ${compared}.`);
  console.log(table(differences.map(({ replica, aspect, path, detail }) => [`  ${replica}`, aspect, path, detail])));
}
