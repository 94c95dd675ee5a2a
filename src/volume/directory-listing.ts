/**
 * One directory's entries in an order that never changes: by a 52-bit hash of the name. The cookie of an entry follows from
 * its name, so a position stays right while other entries come and go, on another leader, and in the next process.
 *
 * Cookies: 0 the beginning, 1 after `.`, 2 after `..`, then (hash * 256 + number among equal hashes) + 3.
 */
import type { DirectoryEntries } from "../replica/replica.ts";
import type { ByteString } from "../util/byte-string.ts";

const FIRST_COOKIE = 3n;
const TIES = 256n;

export class DirectoryListing {
  readonly names: readonly ByteString[];
  readonly types: readonly number[];
  readonly inos: readonly number[];
  readonly #hashes: Float64Array;
  /** Positions in `names`, in the order of hashes. */
  readonly #order: Uint32Array;

  constructor(entries: DirectoryEntries) {
    this.names = entries.names;
    this.types = entries.types;
    this.inos = entries.inos;
    const count = entries.names.length;
    const hashes = new Float64Array(count);
    for (let i = 0; i < count; i++) hashes[i] = hashName(entries.names[i] as ByteString);
    const order = new Uint32Array(count);
    for (let i = 0; i < count; i++) order[i] = i;
    order.sort((a, b) => {
      const difference = (hashes[a] as number) - (hashes[b] as number);
      return difference !== 0 ? difference : (this.names[a] as string) < (this.names[b] as string) ? -1 : 1;
    });
    this.#order = order;
    this.#hashes = new Float64Array(count);
    for (let i = 0; i < count; i++) this.#hashes[i] = hashes[order[i] as number] as number;
  }

  get length(): number {
    return this.#order.length;
  }

  /** Index into `names` of the entry at this place of the order. */
  at(place: number): number {
    return this.#order[place] as number;
  }

  /** The place of the first entry after the cookie. */
  placeAfter(cookie: bigint): number {
    if (cookie < FIRST_COOKIE) return 0;
    const value = cookie - FIRST_COOKIE;
    const hash = Number(value / TIES);
    let low = 0;
    let high = this.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#hashes[middle] as number) < hash) low = middle + 1;
      else high = middle;
    }
    let skip = Number(value % TIES) + 1;
    while (skip-- > 0 && low < this.length && this.#hashes[low] === hash) low++;
    return low;
  }

  cookieAt(place: number): bigint {
    const hash = this.#hashes[place] as number;
    let tie = 0n;
    for (let i = place - 1; i >= 0 && this.#hashes[i] === hash; i--) tie++;
    return BigInt(hash) * TIES + tie + FIRST_COOKIE;
  }
}

/** 52 bits out of two 26-bit multiplicative hashes. */
export function hashName(name: ByteString): number {
  let a = 0x811c9dc5;
  let b = 0x9747b28c;
  for (let i = 0; i < name.length; i++) {
    const byte = name.charCodeAt(i);
    a = Math.imul(a ^ byte, 0x01000193);
    b = Math.imul(b ^ byte, 0x85ebca6b);
    b ^= b >>> 15;
  }
  a ^= a >>> 16;
  b ^= b >>> 13;
  return (a >>> 6) * 2 ** 26 + (b >>> 6);
}
