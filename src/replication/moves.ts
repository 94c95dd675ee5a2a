/**
 * Names that move or go, beside calls that go by them. A replica finds an object by its names, as they were when the call
 * was issued; on threads or across a network a call may be carried out much later. So, for every name that a rename, an
 * unlink or a rmdir is about to change on any replica:
 *
 * - calls by that name, or by a name below it, that are under way on any replica are waited for first;
 * - those that come meanwhile are held until the change has ended on all replicas and the tree knows of it, and go by the
 *   new names then. On all replicas: one that has renamed at once is as wrong with the old name as one that has not yet
 *   is with the new one.
 *
 * Without this a call would answer a false ENOENT, for which its replica would be expelled, or meet another object that
 * has come into the same place. Calls by an open file's descriptor go by no name. A call on an object whose last name is
 * gone answers ENOENT, and never meets what has that name now.
 *
 * Nothing waits for itself: a change goes by the directory that holds its name, which is never below that name; and who
 * holds others back waits for issued calls only, never for held ones.
 */
import type { TreeObject } from "../replica/replica.ts";
import type { ByteString } from "../util/byte-string.ts";
import type { Op } from "../util/op.ts";

export interface NamePlace {
  readonly parent: TreeObject;
  readonly name: ByteString;
}

/** A call that has not answered, and what it goes by. */
interface Underway {
  readonly one: TreeObject;
  readonly other: TreeObject | null;
  readonly ended: Promise<unknown>;
}

class Move implements Disposable {
  readonly places: readonly NamePlace[];
  /** It had to wait for others. */
  waited = false;
  readonly #moves: Moves;
  #ended: PromiseWithResolvers<void> | null = null;

  constructor(places: readonly NamePlace[], moves: Moves) {
    this.places = places;
    this.#moves = moves;
  }

  /** Resolves when the change has ended; made only if somebody waits. */
  get ended(): Promise<void> {
    this.#ended ??= Promise.withResolvers<void>();
    return this.#ended.promise;
  }

  [Symbol.dispose](): void {
    this.#moves.end(this);
    this.#ended?.resolve();
  }
}

export class Moves {
  readonly #active: Move[] = [];
  readonly #underWay = new Set<Underway>();

  /** True while calls may have to be held. */
  get isActive(): boolean {
    return this.#active.length > 0;
  }

  /** Calls that go by names and have not answered. */
  get underWay(): number {
    return this.#underWay.size;
  }

  /** From here until it is disposed of no call by these names is under way. */
  *begin(places: readonly NamePlace[]): Op<Move> {
    const move = new Move(places, this);
    this.#active.push(move);
    for (const call of this.#underWay) {
      if (!goesBy(places, call.one) && (call.other === null || !goesBy(places, call.other))) continue;
      move.waited = true;
      yield call.ended;
    }
    return move;
  }

  end(move: Disposable): void {
    this.#active.splice(this.#active.indexOf(move as Move), 1);
  }

  /** The move that holds a call by this object's names back. */
  over(object: TreeObject): { readonly ended: Promise<void> } | null {
    return this.#active.find((move) => goesBy(move.places, object)) ?? null;
  }

  /** A call that answers later. */
  note(one: TreeObject, other: TreeObject | null, answer: Promise<unknown>): void {
    const call: Underway = { one, other, ended: answer.then(ignore, ignore) };
    this.#underWay.add(call);
    void call.ended.then(() => this.#underWay.delete(call));
  }
}

function ignore(): void {}

/** Do the names of this object go through one of the places? By names, since a resync has objects of its own for them. */
function goesBy(places: readonly NamePlace[], object: TreeObject): boolean {
  return places.some(({ parent, name }) => {
    let at = object;
    for (let rise = depthOf(object) - depthOf(parent) - 1; rise > 0; rise--) at = at.parent as TreeObject;
    return at.parent !== null && at.name === name && isSamePlace(at.parent, parent);
  });
}

function isSamePlace(a: TreeObject, b: TreeObject): boolean {
  let [one, other]: [TreeObject, TreeObject] = [a, b];
  while (one !== other) {
    if (one.parent === null || other.parent === null) return one.parent === other.parent;
    if (one.name !== other.name) return false;
    one = one.parent;
    other = other.parent;
  }
  return true;
}

function depthOf(object: TreeObject): number {
  let depth = 0;
  for (let at = object; at.parent !== null; at = at.parent) depth++;
  return depth;
}
