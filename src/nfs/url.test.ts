import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { formatNfsUrl, parseNfsUrl } from "./url.ts";

const defaults = { port: 0, version: "auto", mountPort: 0, timeoutMs: 10_000, kernel: false, makeDirectory: false };

describe("NFS URLs", () => {
  test("server, path and parameters", () => {
    assert.deepEqual(parseNfsUrl("nfs://mars/export/web"), { ...defaults, hosts: ["mars"], path: ["export", "web"] });
    assert.deepEqual(parseNfsUrl("nfs://mars:20490/e?version=4.1&mountport=20048&timeout=2.5&kernel=1"), {
      hosts: ["mars"],
      port: 20_490,
      path: ["e"],
      version: "4.1",
      mountPort: 20_048,
      timeoutMs: 2_500,
      kernel: true,
      makeDirectory: false,
    });
    assert.deepEqual(parseNfsUrl("nfs://mars").path, []);
    assert.deepEqual(parseNfsUrl("nfs://mars//a/./b/").path, ["a", "b"]);
    assert.equal(parseNfsUrl("nfs://mars/e?timeout=500ms").timeoutMs, 500);
    assert.equal(parseNfsUrl("nfs://mars/e?timeout=3s").timeoutMs, 3_000);
  });

  test("IPv6 and several addresses", () => {
    assert.deepEqual(parseNfsUrl("nfs://[::1]:2049/e").hosts, ["::1"]);
    assert.equal(parseNfsUrl("nfs://[::1]:2049/e").port, 2049);
    assert.deepEqual(parseNfsUrl("nfs://10.0.0.1,[fe80::1%25eth0],mars:111/e").hosts, [
      "10.0.0.1",
      "fe80::1%25eth0",
      "mars",
    ]);
    assert.equal(parseNfsUrl("nfs://[fe80::1]/e").port, 0);
  });

  test("paths are bytes", () => {
    assert.deepEqual(parseNfsUrl("nfs://mars/caf%C3%A9/%FF%20x").path, ["caf\xc3\xa9", "\xff x"]);
    assert.deepEqual(parseNfsUrl("nfs://mars/café").path, ["caf\xc3\xa9"]);
  });

  test("a URL that is printed reads back the same", () => {
    for (const text of [
      "nfs://mars/export/web",
      "nfs://10.0.0.1,[::1]:20490/caf%C3%A9/a%20b%3Fc?version=3&mountport=1&timeout=2500ms&kernel=1",
      "nfs://[::1]/",
    ]) {
      assert.equal(formatNfsUrl(parseNfsUrl(text)), text);
    }
  });

  test("what cannot be is refused, with the reason", () => {
    const refusals: readonly (readonly [string, RegExp])[] = [
      ["http://mars/e", /expected nfs:/],
      ["nfs:///e", /server is missing/],
      ["nfs://ma rs/e", /no server's name/],
      ["nfs://mars:0/e", /port is "0"/],
      ["nfs://mars:70000/e", /port is "70000"/],
      ["nfs://mars/e?version=4.0", /version is "4.0"/],
      ["nfs://mars/e?versions=3", /no parameter "versions"/],
      ["nfs://mars/e?timeout=0", /timeout is "0"/],
      ["nfs://mars/e?timeout=soon", /timeout is "soon"/],
      ["nfs://mars/e?mountport=x", /mountport is "x"/],
      ["nfs://mars/e?kernel=yes", /kernel is "yes"/],
      ["nfs://mars/a/../b", /may not be in a path/],
      ["nfs://mars/a%2Fb", /may not be in a path/],
      ["nfs://mars/100%", /not followed by two hex digits/],
    ];
    for (const [text, reason] of refusals) assert.throws(() => parseNfsUrl(text), reason, text);
  });
});
