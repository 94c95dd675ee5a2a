import assert from "node:assert/strict";
import { test } from "node:test";
import { decodeStatePage, replicasInCall, STATE_PAGE_BYTES, StatePageWriter } from "./state-page.ts";

function page() {
  const memory = new ArrayBuffer(STATE_PAGE_BYTES);
  return { writer: new StatePageWriter(memory), read: () => decodeStatePage(new Uint8Array(memory)) };
}

test("a page that no process has attached to says nothing", () => {
  assert.equal(page().read(), null);
});

test("a short page is refused", () => {
  assert.equal(decodeStatePage(new Uint8Array(16)), null);
});

test("the page tells work from rest and names the replica whose call is running", () => {
  const { writer, read } = page();
  writer.attach(4711);
  assert.deepEqual([read()?.pid, read()?.working], [4711, true]);
  writer.rest();
  assert.equal(read()?.working, false);
  writer.wake();
  writer.request(16, 0x1_0000_0002n);
  writer.loopCalls(0)[0] = 1;
  const stuck = read();
  assert.deepEqual([stuck?.working, stuck?.callReplica, stuck?.opcode, stuck?.unique], [true, 0, 16, 0x1_0000_0002n]);
  writer.loopCalls(0)[0] = 0;
  assert.equal(read()?.callReplica, null);
});

test("replicas with a call on the loop or on threads are those that a successor leaves alone", () => {
  const { writer, read } = page();
  writer.attach(1);
  assert.deepEqual(replicasInCall(read()), []);
  writer.loopCalls(2)[0] = 1;
  writer.threadCalls(5, 3);
  assert.deepEqual(replicasInCall(read()), [2, 5]);
});

test("attaching clears what an earlier process left", () => {
  const { writer, read } = page();
  writer.attach(1);
  writer.loopCalls(2)[0] = 1;
  writer.threadCalls(1, 1);
  writer.attach(2);
  assert.deepEqual(replicasInCall(read()), []);
});
