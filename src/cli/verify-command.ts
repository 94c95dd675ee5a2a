/** `chiron verify` */
import type { VerifyReport, WorkProgress } from "../volume/protocol.ts";
import { connectTo } from "./connection.ts";
import { follow } from "./resync-command.ts";
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
  const { differences, repaired, leftOut } = report;
  const differing = new Set(differences.map(({ replica, path }) => `${replica}:${path}`)).size;
  const left = differing - repaired;
  process.exitCode = left > 0 || leftOut.length > 0 ? 1 : 0;
  if (options.json) console.log(JSON.stringify(report, null, 2));
  else print(line, report, left, options.repair ?? false);
  if (left > 0 || repaired === 0) return;
  // Repaired is what the resyncs have done, not what was found.
  for (const replica of new Set(differences.map((difference) => difference.replica))) {
    // Where resyncs are started by hand this is one; one that is over already is not in need of it.
    await connection.client.call("resync", { params: { replica, full: false } }).catch(() => {});
    if (!(await follow(mountpoint, replica, options.json ?? false))) process.exitCode = 1;
  }
}

function print(line: LiveLine, report: VerifyReport, left: number, repair: boolean): void {
  const { differences, filesCompared, bytesCompared, compared, leftOut } = report;
  const what = `${filesCompared} files, ${formatBytes(bytesCompared)} compared`;
  const places = new Set(differences.map(({ replica, path }) => `${replica}:${path}`)).size;
  if (compared.length < 2) {
    line.final(`${paint("yellow", "Nothing was compared")}: only ${compared.join()} is in sync.`);
  } else if (differences.length === 0) {
    line.final(`${paint("green", `${compared.join(" and ")} are alike`)}: ${what}.`);
  } else {
    const outcome = repair ? ", to be repaired" : "; `--repair` makes them alike";
    const head = `${differences.length} differences in ${places} ${places === 1 ? "place" : "places"}`;
    line.final(`${paint(left > 0 ? "red" : "yellow", head)}${outcome}: ${what}.`);
    console.log(table(differences.map(({ replica, aspect, path, detail }) => [`  ${replica}`, aspect, path, detail])));
  }
  if (leftOut.length > 0) console.log(`Not in sync, so not looked at: ${leftOut.join(", ")}.`);
}
