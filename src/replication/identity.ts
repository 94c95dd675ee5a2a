/**
 * Which replica of which volume a backend is: the marker `.chiron/replica.json`, and what to do at a mount with what is
 * there. Invariants:
 *
 * - A backend without the right marker is never written, except to make it part of a new volume, or when a resync of
 *   a replica that was never filled begins.
 * - A directory without a marker that should have one is where an export is not mounted, and is treated as missing.
 * - Nobody's data are overwritten without having been told: a directory that holds data joins a volume only as
 *   its first source.
 */
import { randomUUID } from "node:crypto";
import type { DirectoryEntries, Replica } from "../replica/replica.ts";
import { type Op, wait } from "../util/op.ts";
import type { ControlFiles } from "./control-files.ts";
import { AdoptError, ControlFileError, IdentityError } from "./errors.ts";
import { CONTROL_DIRECTORY } from "./orphans.ts";

export const FORMAT_VERSION = 1;
const MARKER = "replica.json";
const MARKER_MAX_BYTES = 4096;

export interface Marker {
  readonly formatVersion: number;
  /** A UUID, made when the volume is created. */
  readonly volumeId: string;
  readonly replicaName: string;
  /** RFC 3339. */
  readonly createdAt: string;
}

export type MarkerReading =
  | { readonly kind: "none" }
  | { readonly kind: "marker"; readonly marker: Marker }
  | { readonly kind: "damaged"; readonly why: string }
  | { readonly kind: "newer-version"; readonly formatVersion: number };

/** What one backend shows at a mount. */
export interface BackendReading {
  readonly replica: string;
  readonly marker: MarkerReading;
  /** Holds nothing but `.chiron` and `lost+found`. */
  readonly empty: boolean;
}

export function parseMarker(content: Uint8Array): MarkerReading {
  let value: unknown;
  try {
    value = JSON.parse(Buffer.from(content).toString("utf8"));
  } catch {
    return { kind: "damaged", why: "it is not JSON" };
  }
  if (typeof value !== "object" || value === null) return { kind: "damaged", why: "it is not an object" };
  const { formatVersion, volumeId, replicaName, createdAt } = value as Partial<Record<keyof Marker, unknown>>;
  if (typeof formatVersion !== "number" || !Number.isInteger(formatVersion) || formatVersion < 1) {
    return { kind: "damaged", why: "it has no formatVersion" };
  }
  if (formatVersion > FORMAT_VERSION) return { kind: "newer-version", formatVersion };
  if (typeof volumeId !== "string" || volumeId === "") return { kind: "damaged", why: "it has no volumeId" };
  if (typeof replicaName !== "string" || replicaName === "") return { kind: "damaged", why: "it has no replicaName" };
  const created = typeof createdAt === "string" ? createdAt : "";
  return { kind: "marker", marker: { formatVersion, volumeId, replicaName, createdAt: created } };
}

export function* readMarker(files: ControlFiles): Op<MarkerReading> {
  try {
    const content = yield* files.read(MARKER, MARKER_MAX_BYTES);
    return content === null ? { kind: "none" } : parseMarker(content);
  } catch (error) {
    if (error instanceof ControlFileError) return { kind: "damaged", why: error.message };
    throw error;
  }
}

/** Makes `.chiron` and the marker in it. Only for a new volume, or at the beginning of a replica's first resync. */
export function* writeMarker(files: ControlFiles, volumeId: string, replicaName: string, createdAt: Date): Op<void> {
  const marker: Marker = { formatVersion: FORMAT_VERSION, volumeId, replicaName, createdAt: createdAt.toISOString() };
  yield* files.create();
  yield* files.replace(MARKER, Buffer.from(`${JSON.stringify(marker, null, 2)}\n`));
}

export function* readBackend(replica: Replica, files: ControlFiles): Op<BackendReading> {
  const marker = yield* readMarker(files);
  const into: DirectoryEntries = { names: [], types: [], inos: [] };
  const listed = yield* wait(replica.readdir({ parent: null, name: "" }, into));
  if (listed < 0) throw new ControlFileError(replica.url, "list", listed);
  const empty = into.names.every((name) => name === CONTROL_DIRECTORY || name === "lost+found");
  return { replica: replica.name, marker, empty };
}

export type IdentityDecision =
  /** A volume that exists. `usable`: backends with its marker; `fresh`: empty ones without a marker, which may become
   *  replicas if the record never had them; `refused`: not to be touched. */
  | {
      readonly kind: "existing";
      readonly volumeId: string;
      readonly usable: readonly string[];
      readonly fresh: readonly string[];
      readonly refused: readonly IdentityError[];
    }
  /** A new volume; all of these start in sync, the others are filled from them. */
  | { readonly kind: "new"; readonly volumeId: string; readonly inSync: readonly string[] };

/** What the backends that were given to one mount are together. `configured`: all names, those out of reach as well. */
export function decideIdentity(
  readings: readonly BackendReading[],
  configured: readonly string[],
  source: string | null,
  /** Whoever filled the directories of a new volume vouches for it that they are alike. */
  alike = false,
): IdentityDecision {
  const wrong = readings.flatMap((reading) => problemOf(reading));
  const marked = readings.filter((reading) => reading.marker.kind === "marker");
  const ids = new Set(marked.map((reading) => volumeIdOf(reading)));
  if (ids.size > 1) throw severalVolumes(marked);
  const [volumeId] = ids;
  if (volumeId === undefined) {
    if (wrong[0] !== undefined) throw wrong[0];
    return decideNew(readings, configured, source, alike);
  }
  const misnamed = wrong.find((error) => error.problem === "other-replica");
  if (misnamed !== undefined) throw misnamed;
  const fresh: string[] = [];
  const refused = [...wrong];
  for (const { replica, marker, empty } of readings) {
    if (marker.kind !== "none") continue;
    if (empty) fresh.push(replica);
    else refused.push(notOurs(replica));
  }
  return { kind: "existing", volumeId, usable: marked.map((reading) => reading.replica), fresh, refused };
}

/** Of a `fresh` backend whose replica the record knows already: it had a marker once. */
export function unmounted(replica: string): IdentityError {
  return new IdentityError(
    replica,
    "unmounted",
    "the directory is empty and has no marker, as if the export or disk were not mounted there, so nothing is written " +
      "to it: mount it, or give it a new directory with `chiron replica replace`",
  );
}

function decideNew(
  readings: readonly BackendReading[],
  configured: readonly string[],
  source: string | null,
  alike: boolean,
): IdentityDecision {
  const missing = configured.filter((name) => !readings.some((reading) => reading.replica === name));
  if (missing.length > 0) {
    throw new AdoptError(
      [],
      `A new volume needs all of its replicas at its first mount, and ${quoted(missing)} cannot be reached: ` +
        "make them reachable, or leave them out and add them later with `chiron replica add`",
    );
  }
  const withData = readings.filter((reading) => !reading.empty).map((reading) => reading.replica);
  const volumeId = randomUUID();
  if (alike) return { kind: "new", volumeId, inSync: configured };
  if (source !== null) {
    if (!configured.includes(source)) {
      throw new AdoptError(
        withData,
        `--source "${source}" names none of the replicas: use one of ${quoted(configured)}`,
      );
    }
    const others = withData.filter((name) => name !== source);
    if (withData.length > 0 && !withData.includes(source)) {
      throw new AdoptError(
        withData,
        `--source "${source}" is empty, but ${quoted(others)} is not: name the one that holds the data`,
      );
    }
    return { kind: "new", volumeId, inSync: withData.length === 0 ? configured : [source] };
  }
  if (withData.length === 0 || configured.length === 1) return { kind: "new", volumeId, inSync: configured };
  throw new AdoptError(
    withData,
    `${quoted(withData)} already ${withData.length === 1 ? "holds" : "hold"} data, and nothing says which replica is the ` +
      `truth: mount with --source NAME (one of ${quoted(withData)}), and the others are made like it, ` +
      "or start with empty directories",
  );
}

function problemOf({ replica, marker }: BackendReading): IdentityError[] {
  switch (marker.kind) {
    case "none":
      return [];
    case "damaged":
      return [
        new IdentityError(
          replica,
          "damaged",
          `its marker .chiron/replica.json cannot be read (${marker.why}), so nothing is written to it: restore the marker ` +
            "from another replica's (with this replica's name), or replace this replica by an empty directory",
        ),
      ];
    case "newer-version":
      return [
        new IdentityError(
          replica,
          "newer-version",
          `it was written by a newer chiron (format ${marker.formatVersion}, this one knows ${FORMAT_VERSION}): ` +
            "use the newer version to mount it",
        ),
      ];
    case "marker": {
      const { replicaName } = marker.marker;
      if (replicaName === replica) return [];
      return [
        new IdentityError(
          replica,
          "other-replica",
          `this directory is the volume's replica "${replicaName}": give each path the name that it was created with ` +
            `(--replica ${replicaName}=PATH)`,
        ),
      ];
    }
  }
}

function notOurs(replica: string): IdentityError {
  return new IdentityError(
    replica,
    "not-ours",
    "the directory holds data and no marker of this volume, so nothing is written to it: empty it, or give another one",
  );
}

function severalVolumes(marked: readonly BackendReading[]): IdentityError {
  const [first, ...others] = marked;
  const other = others.find((reading) => volumeIdOf(reading) !== (first && volumeIdOf(first)));
  const name = other?.replica ?? "";
  return new IdentityError(
    name,
    "other-volume",
    `it belongs to another volume than replica "${first?.replica}" (${other && volumeIdOf(other)}, not ` +
      `${first && volumeIdOf(first)}): mount each volume with its own replicas only`,
  );
}

function volumeIdOf({ marker }: BackendReading): string | undefined {
  return marker.kind === "marker" ? marker.marker.volumeId : undefined;
}

function quoted(names: readonly string[]): string {
  return names.map((name) => `"${name}"`).join(", ");
}
