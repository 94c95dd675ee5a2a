/** Where intents are on a replica: `.chiron/intents/<generation>/<seq>`, and `.chiron/intents/spare`. */
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
