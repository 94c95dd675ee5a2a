import assert from "node:assert/strict";
import { test } from "node:test";
import { InodeNumbers, replicaOfIno } from "./inode-numbers.ts";

test("numbers of different replicas, and of one before and after it came back, never meet", () => {
  const numbers = new InodeNumbers();
  const shown = new Set<number>();
  const inos = [1, 2, 12_345, 2 ** 32, 2 ** 42 - 1];
  let count = 0;
  for (let times = 0; times < 256; times++) {
    for (let replica = 0; replica < 8; replica++) {
      for (const ino of inos) {
        const number = numbers.shown(replica, ino);
        assert.ok(Number.isSafeInteger(number) && number > 0);
        assert.equal(replicaOfIno(number), replica);
        shown.add(number);
        count++;
      }
      numbers.renew(replica);
    }
  }
  assert.equal(shown.size, count);
});

test("the first replica's numbers are its own until it comes back, and a later process goes on with them", () => {
  const numbers = new InodeNumbers();
  assert.equal(numbers.shown(0, 77), 77);
  numbers.renew(0);
  numbers.renew(3);
  const later = new InodeNumbers(numbers.steps);
  for (const replica of [0, 1, 3]) assert.equal(later.shown(replica, 77), numbers.shown(replica, 77));
  assert.notEqual(later.shown(0, 77), 77);
});

test("numbers beyond 50 bits are folded, and stay apart from other replicas' ones", () => {
  const numbers = new InodeNumbers();
  for (const ino of [2 ** 50, 2 ** 53 + 2, 2 ** 64]) {
    assert.equal(replicaOfIno(numbers.shown(2, ino)), 2);
    assert.ok(Number.isSafeInteger(numbers.shown(7, ino)));
  }
});
