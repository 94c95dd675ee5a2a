/**
 * Where intents are on a replica: `.chiron/intents/<generation>/<seq>`, and `.chiron/intents/spare`. Beside them lie marks,
 * which say up to which generation intents are over:
 *
 * - `alike-N`: all members were alike in everything up to generation N, on stable storage. It holds for all of them,
 *   whoever has it; so it is on all of them, for certain, before the first of these intents is removed anywhere.
 *   Without it one who has lost the beginning of his intents to a power cut looks like one whose intents were cleared.
 * - `joined-N`: this replica became a member with everything up to generation N done, and has no intents of that.
 */
import type { TreeObject } from "../replica/replica.ts";
import type { ByteString } from "../util/byte-string.ts";
import { CONTROL_DIRECTORY } from "./orphans.ts";

export interface ControlPlace extends TreeObject {
  readonly parent: ControlPlace | null;
}

export const rootPlace: ControlPlace = { parent: null, name: "" };
export const controlPlace: ControlPlace = { parent: rootPlace, name: CONTROL_DIRECTORY };
export const intentsPlace: ControlPlace = { parent: controlPlace, name: "intents" };
/** A generation kept ready for a full disk: it holds one intent, for the whole tree. */
export const SPARE: ByteString = "spare";
export const sparePlace: ControlPlace = { parent: intentsPlace, name: SPARE };

export function generationPlace(generation: number): ControlPlace {
  return { parent: intentsPlace, name: String(generation) };
}

/** A generation's number from its directory's name, or null. */
export function generationOf(name: ByteString): number | null {
  return /^[1-9]\d{0,14}$/.test(name) ? Number(name) : null;
}

export interface Mark {
  readonly kind: "alike" | "joined";
  readonly generation: number;
}

export function markName({ kind, generation }: Mark): ByteString {
  return `${kind}-${generation}`;
}

export function markOf(name: ByteString): Mark | null {
  const [, kind, generation = ""] = /^(alike|joined)-(\d{1,15})$/.exec(name) ?? [];
  return kind === undefined ? null : { kind: kind as Mark["kind"], generation: Number(generation) };
}
