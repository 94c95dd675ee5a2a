/**
 * An open file: its descriptors on each replica, shared by all handles that applications have on it, opened when they
 * are needed and again after a replica was reconnected.
 */
import type { ReplicaHandle } from "../replica/replica.ts";
import type { TreeNode } from "./tree.ts";

export class OpenFile {
  readonly node: TreeNode;
  /** How many handles use it. */
  users = 0;
  /** One for each replica of the volume, by its index; -1 where it is not open. */
  readonly handles: ReplicaHandle[];
  readonly writable: boolean[];
  /** Read-only descriptors that a writable one has replaced; a call may still be under way on them. */
  retired: { readonly index: number; readonly handle: ReplicaHandle }[] = [];
  /** Known to have no set-user-id or set-group-id bit and no capabilities that a write would have to clear. */
  unprivileged = false;
  /** The replica that its data are read from, -1 until chosen: sticky, so that caches stay warm. */
  reader = -1;

  constructor(node: TreeNode, replicas: number) {
    this.node = node;
    this.handles = new Array<ReplicaHandle>(replicas).fill(-1);
    this.writable = new Array<boolean>(replicas).fill(false);
  }
}
