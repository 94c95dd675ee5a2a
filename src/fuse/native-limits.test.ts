import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { refuseNative } from "./native-limits.ts";

const modest = { posixAcl: false, writebackCache: false, locks: false, restart: false, acceptWrongResults: true };

describe("a mount through fuse-native", () => {
  test("is refused unless its wrong results are accepted", () => {
    assert.equal(refuseNative(modest), null);
    const refusal = refuseNative({ ...modest, acceptWrongResults: false }) ?? "";
    for (const id of ["caller", "times", "names", "inodes", "unlinked"]) assert.match(refusal, new RegExp(`${id}:`));
    assert.doesNotMatch(refusal, /acl:/);
  });

  test("is refused where it is asked for what it lacks", () => {
    assert.match(refuseNative({ ...modest, posixAcl: true }) ?? "", /acl: /);
    assert.match(refuseNative({ ...modest, writebackCache: true }) ?? "", /writeback: /);
    assert.match(refuseNative({ ...modest, locks: true }) ?? "", /locks: /);
    assert.match(refuseNative({ ...modest, restart: true }) ?? "", /restart: /);
  });
});
