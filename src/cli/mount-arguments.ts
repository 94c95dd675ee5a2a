/** The options of `chiron mount` and of a line in fstab → what a holder is started with. Pure. */
import { basename, resolve } from "node:path";
import { parseMountOptions } from "../fuse/mount-options.ts";
import { refuseNative } from "../fuse/native-limits.ts";
import type { FullPolicy, ReadPolicy } from "../replication/model.ts";
import { FailureError } from "../volume/failure.ts";
import { parseAddress } from "../volume/holder-metrics.ts";
import type { VolumeConfig } from "../volume/protocol.ts";
import { canonicalMountpoint, type HolderConfig, mountDirectory } from "../volume/registry.ts";
import { nameReplicas, parseReplica, parseSpec, type ReplicaArgument } from "./replica-arguments.ts";
import { parseDuration, parseSize } from "./units.ts";

/** As commander gives them: texts, and lists of texts. */
export interface MountOptions {
  readonly replica?: readonly string[];
  readonly replicaSlow?: readonly string[];
  readonly volume?: string;
  readonly minInSync?: string;
  readonly readPolicy?: string;
  readonly fullPolicy?: string;
  readonly writeCache?: string;
  readonly resync?: string;
  readonly witness?: string;
  readonly forceDegraded?: boolean;
  readonly log?: string;
  readonly logLevel?: string;
  readonly metrics?: string;
  readonly capacity?: string;
  readonly source?: string;
  readonly deadline?: string;
  readonly resyncBandwidth?: string;
  readonly onEvent?: string;
  readonly binding?: string;
  readonly acceptWrongResults?: boolean;
  readonly foreground?: boolean;
  readonly o?: readonly string[];
}

const choices = {
  readPolicy: { "round-robin": "RoundRobin", nearest: "Nearest", "lowest-latency": "LowestLatency" },
  fullPolicy: { "fail-writes": "FailWrites", "drop-replica": "DropReplica" },
  writeCache: { none: "None", "write-back": "WriteBack" },
  resync: { automatic: "Automatic", manual: "Manual" },
  binding: { kernel: "kernel", "fuse-native": "fuse-native" },
  logLevel: { debug: "debug", info: "info", warn: "warn", error: "error" },
} as const;
const MIN_DEADLINE_MS = 200;
const LEAST_SIZE_BYTES = 64 * 1024;

/** `positionals`: `[SPEC] MOUNTPOINT`. `directory`: what relative paths are relative to. Throws `FailureError` ("usage"). */
export function planMount(options: MountOptions, positionals: readonly string[], directory: string): HolderConfig {
  const [last, ...before] = positionals.toReversed();
  if (last === undefined || last === "")
    throw usage("Where to mount is missing: chiron mount --replica PATH --replica PATH MOUNTPOINT");
  if (before.length > 1) throw usage(`"${before[0]}" is one argument too many: quote paths with spaces`);
  const mountpoint = canonicalMountpoint(resolve(directory, last));
  const spec = before[0];
  const replicas = nameReplicas(replicasOf(options, spec, directory));
  const volume = options.volume ?? (slug(basename(mountpoint)) || "root");
  if (!/^[A-Za-z0-9][\w.-]{0,62}$/.test(volume)) {
    throw usage(`--volume: "${volume}" is no name: letters, digits, dashes and dots, 63 at most`);
  }
  const minInSyncReplicas = Number(options.minInSync ?? 1);
  if (!Number.isInteger(minInSyncReplicas) || minInSyncReplicas < 1 || minInSyncReplicas > replicas.length) {
    throw usage(
      `--min-in-sync: ${options.minInSync} is not a number from 1 to ${replicas.length}, the number of replicas`,
    );
  }
  if (options.source !== undefined && !replicas.some((replica) => replica.name === options.source)) {
    const names = replicas.map((replica) => replica.name).join(", ");
    throw usage(`--source: there is no replica "${options.source}", only ${names}`);
  }
  if (options.onEvent?.trim() === "") throw usage("--on-event: the command is empty");
  if (options.metrics !== undefined && parseAddress(options.metrics) === null) {
    throw usage(`--metrics: "${options.metrics}" is no address like 9100, 127.0.0.1:9100 or [::1]:9100`);
  }
  const { kernel, unknown } = mountOptions(options.o ?? []);
  if (unknown.length > 0)
    throw usage(`Unknown mount option "${unknown.join('", "')}": \`chiron mount --help\` lists them`);
  const deadlineMs = parseDuration(options.deadline ?? "10s", "--deadline");
  if (deadlineMs < MIN_DEADLINE_MS)
    throw usage(`--deadline: ${options.deadline} is too short: ${MIN_DEADLINE_MS}ms at least`);
  const writeCache = choose("writeCache", options.writeCache ?? "none") as VolumeConfig["writeCache"];
  const native = choose("binding", options.binding ?? "kernel") === "fuse-native";
  if (native) refuseNativeUse(options, writeCache);
  const config: VolumeConfig = {
    ...(native ? { binding: "fuse-native" } : {}),
    volume,
    mountpoint,
    replicas,
    witness: options.witness === undefined ? null : resolve(directory, options.witness),
    minInSyncReplicas,
    readPolicy: choose("readPolicy", options.readPolicy ?? "round-robin") as ReadPolicy,
    fullPolicy: choose("fullPolicy", options.fullPolicy ?? "fail-writes") as FullPolicy,
    writeCache,
    capacityBytes: options.capacity === undefined ? null : size(options.capacity, "--capacity"),
    source: options.source ?? null,
    forceDegraded: options.forceDegraded ?? false,
    deadlineMs,
    resyncBytesPerSecond:
      options.resyncBandwidth === undefined ? null : size(options.resyncBandwidth, "--resync-bandwidth"),
    resyncMode: choose("resync", options.resync ?? "automatic") as VolumeConfig["resyncMode"],
    options: kernel,
    stateDirectory: mountDirectory(mountpoint),
    metricsAddress: options.metrics ?? null,
    logLevel: choose("logLevel", options.logLevel ?? "info") as VolumeConfig["logLevel"],
  };
  return {
    volume: config,
    source: spec ?? `chiron:${volume}`,
    onEvent: options.onEvent ?? null,
    logFile: options.log === undefined ? null : resolve(directory, options.log),
  };
}

function replicasOf(options: MountOptions, spec: string | undefined, directory: string): ReplicaArgument[] {
  if (spec?.includes("=") && !spec.includes("/")) {
    throw usage(`"${spec}" names no replicas: write their paths with slashes, /a=/b or ./a=./b`);
  }
  const fromSpec = spec === undefined || !spec.includes("/") ? [] : parseSpec(spec, directory);
  const fast = (options.replica ?? []).map((text) => parseReplica(text, false, directory));
  const slow = (options.replicaSlow ?? []).map((text) => parseReplica(text, true, directory));
  return [...fromSpec, ...fast, ...slow];
}

function mountOptions(lists: readonly string[]): { readonly kernel: string[]; readonly unknown: readonly string[] } {
  const kernel = lists.flatMap((list) => list.split(",")).filter((option) => option !== "");
  return { kernel, unknown: parseMountOptions(kernel).others.filter((option) => !ignoredOption.test(option)) };
}
const ignoredOption = /^(?:comment=|X-|_)/;

/** Options of Chiron that may stand in fstab's fourth field, beside those of mount(8); `replica=` any number of times. */
const helperOptions: Readonly<Record<string, keyof MountOptions>> = {
  replica: "replica",
  "replica-slow": "replicaSlow",
  volume: "volume",
  "min-in-sync": "minInSync",
  "read-policy": "readPolicy",
  "full-policy": "fullPolicy",
  "write-cache": "writeCache",
  resync: "resync",
  witness: "witness",
  "force-degraded": "forceDegraded",
  log: "log",
  "log-level": "logLevel",
  metrics: "metrics",
  capacity: "capacity",
  source: "source",
  deadline: "deadline",
  "resync-bandwidth": "resyncBandwidth",
  binding: "binding",
  "accept-wrong-results": "acceptWrongResults",
  "on-event": "onEvent",
};

/**
 * `mount.chiron SPEC DIRECTORY [-sfnv] [-N NAMESPACE] [-o OPTIONS] [-t TYPE]`. SPEC is ChironFS's form, or, if it has no
 * slash, the name of the volume, and its replicas are `replica=` options.
 */
export function parseHelperArguments(argv: readonly string[]): {
  readonly options: MountOptions;
  readonly positionals: readonly string[];
  readonly fake: boolean;
} {
  const positionals: string[] = [];
  const lists: string[] = [];
  let fake = false;
  const rest = [...argv];
  for (let argument = rest.shift(); argument !== undefined; argument = rest.shift()) {
    if (argument === "-o") lists.push(rest.shift() ?? "");
    else if (argument === "-t" || argument === "-N") rest.shift();
    else if (/^-[sfnv]+$/.test(argument)) fake ||= argument.includes("f");
    else if (argument.startsWith("-")) throw usage(`mount.chiron: unknown option ${argument}`);
    else positionals.push(argument);
  }
  const options: Record<string, string | boolean | string[]> = {};
  const others: string[] = [];
  // A comma in a value is written "\,".
  for (const option of lists.flatMap((list) => list.split(/(?<!\\),/)).map((text) => text.replaceAll("\\,", ","))) {
    const [name = "", ...value] = option.split("=");
    const key = helperOptions[name];
    if (key === undefined) others.push(option);
    else if (key === "forceDegraded" || key === "acceptWrongResults") options[key] = true;
    else if (key === "replica" || key === "replicaSlow") {
      options[key] = [...((options[key] as string[] | undefined) ?? []), value.join("=")];
    } else options[key] = value.join("=");
  }
  const [spec] = positionals;
  if (positionals.length === 2 && spec !== undefined && !spec.includes("/") && options["volume"] === undefined) {
    options["volume"] = spec;
  }
  return { options: { ...options, o: others }, positionals, fake };
}

/** What the binding lacks is refused, and what it does wrongly unless that is taken. */
function refuseNativeUse(
  { acceptWrongResults = false, o = [] }: MountOptions,
  cache: VolumeConfig["writeCache"],
): void {
  const wishes = { posixAcl: false, writebackCache: cache === "WriteBack", locks: false, restart: false };
  const refusal = refuseNative({ ...wishes, acceptWrongResults });
  if (refusal !== null) throw usage(refusal);
  if (o.some((list) => list !== "")) throw usage("-o: fuse-native passes no mount options on; leave them out");
}

function size(text: string, what: string): number {
  const bytes = parseSize(text, what);
  if (bytes < LEAST_SIZE_BYTES) throw usage(`${what}: ${text} is too small: 64K at least`);
  return bytes;
}

function choose(option: keyof typeof choices, value: string): string {
  const all: Readonly<Record<string, string>> = choices[option];
  const chosen = all[value] ?? Object.values(all).find((name) => name === value);
  if (chosen !== undefined) return chosen;
  const flag = option.replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
  throw usage(`--${flag}: "${value}" is not one of ${Object.keys(all).join(", ")}`);
}

function slug(text: string): string {
  return text
    .replaceAll(/[^\w.-]+/g, "-")
    .replaceAll(/^[-._]+|-+$/g, "")
    .slice(0, 63);
}

function usage(message: string): FailureError {
  return new FailureError("usage", message);
}
