import assert from "node:assert/strict";
import { test } from "node:test";
import { CallRecorder } from "../metrics/volume-metrics.ts";
import { measured } from "./measured.ts";

class Base {
  readonly name = "mars";
  #calls = 0;
  optional?: () => number;

  read(bytes: number): number {
    this.#calls++;
    return bytes;
  }
  async write(bytes: number): Promise<number> {
    this.#calls++;
    return bytes;
  }
  forget(): void {
    this.#calls++;
  }
  get calls(): number {
    return this.#calls;
  }
}
class Derived extends Base {}

test("calls are recorded with their outcome and bytes, whether they answer at once or later", async () => {
  const recorder = new CallRecorder();
  const target = new Derived();
  const wrapped = measured<Derived>(target, recorder, { except: ["forget"], withBytes: ["read", "write"] });
  assert.equal(wrapped.read(10), 10);
  assert.equal(wrapped.read(-5), -5);
  assert.equal(await wrapped.write(7), 7);
  wrapped.forget();
  const read = recorder.of("read");
  assert.deepEqual([read.durations.count, read.errors, read.bytes], [2, 1, 10]);
  assert.deepEqual([recorder.of("write").durations.count, recorder.of("write").bytes], [1, 7]);
  assert.equal(recorder.byName.has("forget"), false);
  assert.deepEqual([wrapped.name, wrapped.calls, wrapped.optional], ["mars", 4, undefined]);
});
