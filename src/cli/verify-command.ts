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
  const differing = new Set(differences.map(({ replica, path }) => `${replica}:${path}`)).size;
  const left = differing - repaired;
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
  const outcome = options.repair ? `, ${repaired} repaired` : "; `--repair` makes them like the leader";
  const head = `${differences.length} differences in ${differing} ${differing === 1 ? "place" : "places"}`;
  line.final(`${paint(left > 0 ? "red" : "yellow", head)}${outcome}: ${compared}.`);
  console.log(table(differences.map(({ replica, aspect, path, detail }) => [`  ${replica}`, aspect, path, detail])));
}
