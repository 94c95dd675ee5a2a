/**
 * Facts beside the nodes in the state log's header: what was agreed with the kernel, and what two names meant on each
 * replica before they were exchanged.
 *
 *   u32 agreed @0 (1 once it is), u32 minor @4, u64 flags @8, u32 largest write @16
 *   f64 term @168 that the volume was last claimed with, u32 certain @176: bits of the replicas that are members by every
 *   record that may be in force
 *   u32 offered @180: what the volume offers (bits; length of names from bit 12; bit 31 once it is there), f64 granularity of
 *   times @184
 *   u8 steps of inode numbers: @20 of replicas 0 to 3, @36 of 4 to 7
 *   u64 unique @24 of the exchange, u32 replicas @32 (bits), f64 pairs @40: two for each of 8 replicas
 */
import type { Negotiated } from "../fuse/filesystem.ts";
import type { Capabilities } from "../replica/replica.ts";
import type { ExchangeMemo } from "../replication/namespace.ts";
import type { StateLog } from "./state-log.ts";

const MAX_REPLICAS = 8;

export function saveNegotiated(log: StateLog, agreed: Negotiated): void {
  const facts = log.facts();
  facts.setUint32(4, agreed.minor, true);
  facts.setBigUint64(8, agreed.flags, true);
  facts.setUint32(16, agreed.maxWriteBytes, true);
  facts.setUint32(0, 1, true);
}

export function loadNegotiated(log: StateLog): Negotiated | null {
  const facts = log.facts();
  if (facts.getUint32(0, true) !== 1) return null;
  return {
    minor: facts.getUint32(4, true),
    flags: facts.getBigUint64(8, true),
    maxWriteBytes: facts.getUint32(16, true),
  };
}

export function saveTerm(log: StateLog, term: number): void {
  log.facts().setFloat64(168, term, true);
}

export function loadTerm(log: StateLog): number {
  return log.facts().getFloat64(168, true);
}

/** How often each replica's inode numbers have moved on (`InodeNumbers`). */
export function saveNumbers(log: StateLog, steps: readonly number[]): void {
  for (let i = 0; i < MAX_REPLICAS; i++) log.facts().setUint8(i < 4 ? 20 + i : 32 + i, steps[i] ?? 0);
}

export function loadNumbers(log: StateLog): readonly number[] {
  return Array.from({ length: MAX_REPLICAS }, (_, i) => log.facts().getUint8(i < 4 ? 20 + i : 32 + i));
}

/** `certain`: indices of the replicas that are members by every record that may be in force. */
export function saveCertain(log: StateLog, certain: readonly number[]): void {
  log.facts().setUint32(
    176,
    certain.reduce((bits, replica) => bits | (1 << replica), 0),
    true,
  );
}

export function loadCertain(log: StateLog): readonly number[] {
  const bits = log.facts().getUint32(176, true);
  return Array.from({ length: MAX_REPLICAS }, (_, i) => i).filter((i) => (bits & (1 << i)) !== 0);
}

const abilityBits = [
  "userXattrs",
  "rootXattrs",
  "acls",
  "hardLinks",
  "symlinks",
  "specialFiles",
  "holes",
  "fallocate",
  "renameFlags",
] as const;

/** What all of these replicas can do: a successor offers no more, though it may not see each of them. */
export function saveOffered(log: StateLog, all: readonly Capabilities[]): void {
  let bits = 1 << 31;
  for (const [i, ability] of abilityBits.entries()) if (all.every((one) => one[ability])) bits |= 1 << i;
  bits |= Math.min(255, ...all.map((one) => one.maxNameBytes)) << 12;
  log.facts().setFloat64(184, Math.max(1, ...all.map((one) => one.timeGranularityNsec)), true);
  log.facts().setUint32(180, bits >>> 0, true);
}

export function loadOffered(log: StateLog): Capabilities | null {
  const bits = log.facts().getUint32(180, true);
  if (bits >>> 31 === 0) return null;
  const can = Object.fromEntries(abilityBits.map((ability, i) => [ability, (bits & (1 << i)) !== 0]));
  return {
    ...(can as Record<(typeof abilityBits)[number], boolean>),
    timeGranularityNsec: log.facts().getFloat64(184, true),
    maxNameBytes: (bits >>> 12) & 0xffff,
  };
}

/** Of the request with this number. The kernel has one exchange of two names under way at a time, we remember the last. */
export function exchangeMemo(log: StateLog, unique: bigint): ExchangeMemo {
  return {
    load() {
      const facts = log.facts();
      if (facts.getBigUint64(24, true) !== unique) return null;
      const bits = facts.getUint32(32, true);
      const pairs = new Map<number, readonly [number, number]>();
      for (let i = 0; i < MAX_REPLICAS; i++) {
        if ((bits & (1 << i)) !== 0) {
          pairs.set(i, [facts.getFloat64(40 + i * 16, true), facts.getFloat64(48 + i * 16, true)]);
        }
      }
      return pairs;
    },
    save(pairs) {
      const facts = log.facts();
      facts.setBigUint64(24, 0n, true);
      let bits = 0;
      for (const [i, [a, b]] of pairs) {
        bits |= 1 << i;
        facts.setFloat64(40 + i * 16, a, true);
        facts.setFloat64(48 + i * 16, b, true);
      }
      facts.setUint32(32, bits, true);
      facts.setBigUint64(24, unique, true);
    },
  };
}
