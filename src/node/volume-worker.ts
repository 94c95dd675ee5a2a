/** Which node does a piece of work on a volume: pure. */
import type { ReplicatedVolume } from "../api/replicated-volume.ts";

export type WorkerDecision =
  | { readonly kind: "do" }
  /** Another node's. */
  | { readonly kind: "leave" }
  /** Any node's: after this time, if nobody has claimed the volume by then. */
  | { readonly kind: "wait"; readonly ms: number };

/** The holder does it; of a volume without one the node that has its directories, or any node if it has none. */
export function decideWorker(
  { status, spec }: ReplicatedVolume,
  node: string,
  staggerMs: number,
  nowMs: number,
): WorkerDecision {
  const { holder } = status ?? {};
  if (holder !== undefined && holder !== "") return { kind: holder === node ? "do" : "leave" };
  const places = (status?.replicas ?? []).flatMap(({ place }) => (place === undefined ? [] : [place]));
  if (places.length < spec.replicas.length) return { kind: "leave" };
  const hosts = new Set(places.flatMap(({ hostPath }) => (hostPath === undefined ? [] : [hostPath.node])));
  if (hosts.size > 0) return { kind: hosts.size === 1 && hosts.has(node) ? "do" : "leave" };
  // Each node's own part of every period, so that they seldom meet; a claim settles it where they do.
  const waitMs = (((staggerMs - nowMs) % 2_000) + 2_000) % 2_000;
  return waitMs < 200 || waitMs > 1_800 ? { kind: "do" } : { kind: "wait", ms: waitMs };
}
