/**
 * Where a replica that is left behind still has what has been renamed since: places in *its* tree, which is not the
 * volume's any more. A resync renames there instead of copying. Places move when the resync renames directories on the
 * replica, so each is found by its way from the replica's root, and can be given to the replica's calls.
 */
import type { TreeObject } from "../replica/replica.ts";
import type { ByteString } from "../util/byte-string.ts";

export class TargetPlace<Claimant> implements TreeObject {
  parent: TargetPlace<Claimant> | null;
  name: ByteString;
  children: Map<ByteString, TargetPlace<Claimant>> | null = null;
  /** Who wants to have what is here. */
  claimant: Claimant | null = null;
  /** Who uses it right now: it is not forgotten meanwhile. */
  holds = 0;

  constructor(parent: TargetPlace<Claimant> | null, name: ByteString) {
    this.parent = parent;
    this.name = name;
  }

  /** The place of this name in here, made if nobody knows it yet. */
  child(name: ByteString): TargetPlace<Claimant> {
    let place = this.children?.get(name);
    if (place === undefined) {
      place = new TargetPlace<Claimant>(this, name);
      this.children ??= new Map();
      this.children.set(name, place);
    }
    return place;
  }

  path(): ByteString[] {
    const path: ByteString[] = [];
    for (let place: TargetPlace<Claimant> = this; place.parent !== null; place = place.parent) path.push(place.name);
    return path.reverse();
  }

  hold(): this {
    this.holds++;
    return this;
  }

  release(): void {
    this.holds--;
    this.prune();
  }

  /** Forgets this place, and those above that only led here. */
  prune(): void {
    if (this.claimant !== null || this.holds > 0 || this.children !== null || this.parent === null) return;
    const parent = this.parent;
    if (parent.children?.get(this.name) === this) {
      parent.children.delete(this.name);
      if (parent.children.size === 0) parent.children = null;
    }
    parent.prune();
  }

  /** What was here is now at `name` in `directory`, with all below it; what was known of that place is forgotten. */
  moveTo(directory: TargetPlace<Claimant>, name: ByteString): void {
    const old = this.parent;
    if (old === null) throw new Error("The root of a replica cannot be renamed");
    if (old === directory && this.name === name) return;
    if (old.children?.get(this.name) === this) {
      old.children.delete(this.name);
      if (old.children.size === 0) old.children = null;
    }
    directory.children ??= new Map();
    directory.children.set(name, this);
    this.parent = directory;
    this.name = name;
    old.prune();
  }

  /** Every claimed place at or below this one. */
  *claimed(): Generator<TargetPlace<Claimant>> {
    if (this.claimant !== null) yield this;
    if (this.children !== null) for (const place of [...this.children.values()]) yield* place.claimed();
  }
}
