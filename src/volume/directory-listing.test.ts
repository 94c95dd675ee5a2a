import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { DirectoryListing } from "./directory-listing.ts";

function listing(names: readonly string[]): DirectoryListing {
  return new DirectoryListing({
    names: [...names],
    types: names.map(() => 0o100000),
    inos: names.map((_, i) => i + 1),
  });
}

function from(list: DirectoryListing, cookie: bigint): string[] {
  const names: string[] = [];
  for (let place = list.placeAfter(cookie); place < list.length; place++)
    names.push(list.names[list.at(place)] as string);
  return names;
}

const names = fc.uniqueArray(fc.string({ minLength: 1, maxLength: 6 }), { maxLength: 40 });

test("going on at any entry's cookie lists exactly the rest", () => {
  fc.assert(
    fc.property(names, (all) => {
      const list = listing(all);
      const order = from(list, 2n);
      assert.deepEqual([...order].sort(), [...all].sort());
      for (let place = 0; place < list.length; place++) {
        assert.deepEqual(from(list, list.cookieAt(place)), order.slice(place + 1));
      }
    }),
  );
});

test("a position stays right while other entries come and go", () => {
  fc.assert(
    fc.property(names, names, fc.nat(), (before, more, at) => {
      if (before.length === 0) return;
      const old = listing(before);
      const place = at % old.length;
      const here = old.names[old.at(place)] as string;
      const rest = new Set(from(old, old.cookieAt(place)));
      const now = listing([...new Set([...before.filter((name) => name !== here || at % 2 === 0), ...more])]);
      const seen = new Set(from(now, old.cookieAt(place)));
      for (const name of before) if (name !== here) assert.equal(seen.has(name), rest.has(name), name);
    }),
  );
});

test("cookies are positive 64-bit numbers in ascending order", () => {
  const list = listing(Array.from({ length: 2000 }, (_, i) => `file-${i}`));
  let last = 2n;
  for (let place = 0; place < list.length; place++) {
    const cookie = list.cookieAt(place);
    assert.ok(cookie > last && cookie < 2n ** 63n);
    last = cookie;
  }
});
