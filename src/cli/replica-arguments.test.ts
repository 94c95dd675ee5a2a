import assert from "node:assert/strict";
import { test } from "node:test";
import { nameReplicas, parseReplica, parseSpec } from "./replica-arguments.ts";

const named = (...texts: string[]) =>
  nameReplicas(texts.map((text) => parseReplica(text, false, "/here"))).map(({ name, url }) => `${name} ${url}`);

test("a replica is a path, with a name or without", () => {
  assert.deepEqual(named("/srv/a", "mars=b"), ["a /srv/a", "mars /here/b"]);
  assert.deepEqual(named("/mnt/x=y/data"), ["data /mnt/x=y/data"]);
  assert.deepEqual(named("m=nfs://mars/e?version=3"), ["m nfs://mars/e?version=3"]);
});

test("where its calls run can be said behind the path", () => {
  assert.deepEqual(parseReplica("a=/srv/a?run=threads", true, "/"), {
    name: "a",
    url: "/srv/a",
    slow: true,
    run: "threads",
  });
  assert.equal(parseReplica("/srv/what?", false, "/").url, "/srv/what?");
});

test("names do not depend on the order, and whole paths tell those apart that end alike", () => {
  assert.deepEqual(named("/disk1/data", "/disk2/data"), ["disk1-data /disk1/data", "disk2-data /disk2/data"]);
  assert.deepEqual(named("/disk2/data", "/disk1/data"), ["disk2-data /disk2/data", "disk1-data /disk1/data"]);
  assert.deepEqual(named("/srv/Web_1"), ["web-1 /srv/Web_1"]);
});

test("ChironFS's own form is understood: a colon is slow, a part without a slash is a name", () => {
  const parsed = parseSpec("/client1=/client2=:/slow", "/").map(({ name, url, slow }) => [name, url, slow]);
  assert.deepEqual(parsed, [
    [null, "/client1", false],
    [null, "/client2", false],
    [null, "/slow", true],
  ]);
  const named = parseSpec("mars=/a\\=b=venus=:/c", "/").map(({ name, url, slow }) => [name, url, slow]);
  assert.deepEqual(named, [
    ["mars", "/a=b", false],
    ["venus", "/c", true],
  ]);
});

test("what cannot be a replica is refused with what to do", () => {
  const refused: [() => unknown, RegExp][] = [
    [() => named(), /No replica/],
    [() => named(...Array.from({ length: 9 }, (_, i) => `/srv/${i}`)), /9 replicas.*8 are possible/],
    [() => named("a=/x", "a=/y"), /Two replicas are called "a"/],
    [() => named("Mars=/x"), /lower-case/],
    [() => named("witness=/x"), /another one/],
    [() => named("/"), /cannot be the name/],
    [() => named("a="), /empty/],
    [() => named("http://mars/x"), /nfs:\/\//],
    [() => named("nfs://"), /server|export/],
    [() => parseSpec("/a=mars", "/"), /names no replica/],
    [() => parseSpec("/a==/b", "/"), /empty/],
  ];
  for (const [attempt, message] of refused) assert.throws(attempt, message);
});
