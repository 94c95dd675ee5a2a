/** The wrapper of all calls, over a real socket, with the generated client. */
import assert from "node:assert/strict";
import { mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, it } from "node:test";
import { credentials, Metadata, type ServiceError, status } from "@grpc/grpc-js";
import { jsonLogger } from "../util/logger.ts";
import {
  IdentityClient,
  IdentityService,
  NodeClient,
  type NodeServer,
  NodeService,
  type NodeStageVolumeRequest,
  type NodeUnstageVolumeRequest,
} from "./generated/csi.ts";
import { identityHandlers } from "./identity.ts";
import { Operations } from "./operations.ts";
import { SocketServer } from "./server.ts";
import { CsiError } from "./status.ts";
import { exclusive, type Handlers, serve } from "./unary.ts";

describe("a call of a CSI service", () => {
  let directory: string;
  let lines: string[];
  let operations: Operations;
  let server: SocketServer;
  let node: NodeClient;
  let release = Promise.withResolvers<void>();
  let aborted: string[] = [];

  const notHere = () => {
    throw new CsiError("UNIMPLEMENTED", "not here");
  };
  const handlers: Handlers<NodeServer> = {
    nodeGetInfo: () => ({ nodeId: "n1", maxVolumesPerNode: 0n, accessibleTopology: undefined }),
    nodeGetCapabilities: () => {
      throw new TypeError("a bug", { cause: new Error("its cause") });
    },
    nodeStageVolume: exclusive(
      (request: NodeStageVolumeRequest) => request.volumeId,
      async (request, { signal }) => {
        signal.addEventListener("abort", () => aborted.push(request.volumeId));
        if (request.volumeId === "slow") await release.promise;
        return {};
      },
    ),
    nodeUnstageVolume: exclusive((request: NodeUnstageVolumeRequest) => request.volumeId, notHere),
    nodePublishVolume: notHere,
    nodeUnpublishVolume: notHere,
    nodeGetVolumeStats: notHere,
    nodeGetVolumeHealth: notHere,
    nodeExpandVolume: notHere,
  };

  beforeEach(async () => {
    directory = mkdtempSync(join(tmpdir(), "chiron-csi-"));
    lines = [];
    aborted = [];
    release = Promise.withResolvers();
    operations = new Operations();
    const logger = jsonLogger((line) => lines.push(line), "debug");
    const options = { operations, logger, maxCallMs: 60_000 };
    server = new SocketServer(join(directory, "csi.sock"));
    const identity = identityHandlers({ driverName: "d", version: "1", hasController: false, ready: () => true });
    server.add(IdentityService, serve(identity, options)).add(NodeService, serve(handlers, options));
    await server.start();
    node = new NodeClient(`unix:${server.path}`, credentials.createInsecure());
  });
  afterEach(async () => {
    release.resolve();
    node.close();
    await server.stop(100);
    rmSync(directory, { recursive: true });
  });

  const stage = (volumeId: string, deadlineMs = 10_000, secrets: Record<string, string> = {}) =>
    new Promise<ServiceError | null>((resolve) => {
      const request = {
        volumeId,
        publishContext: {},
        stagingTargetPath: "",
        volumeCapability: undefined,
        secrets,
        volumeContext: {},
      };
      const deadline = Date.now() + deadlineMs;
      node.nodeStageVolume(request, new Metadata(), { deadline }, (error) => resolve(error));
    });

  it("is answered", async () => {
    const nodeId = await new Promise((resolve, reject) =>
      node.nodeGetInfo({}, (error, answer) => (error ? reject(error) : resolve(answer.nodeId))),
    );
    assert.equal(nodeId, "n1");
  });

  it("answers INTERNAL with all causes for what nobody foresaw, and logs it as an error", async () => {
    const error = await new Promise<ServiceError | null>((resolve) => node.nodeGetCapabilities({}, resolve));
    assert.equal(error?.code, status.INTERNAL);
    assert.equal(error?.details, "a bug: its cause");
    assert.match(lines.join(""), /"level":"error".*"status":"INTERNAL"/);
  });

  it("answers ABORTED while another one runs on the same volume, and serves other volumes", async () => {
    const slow = stage("slow", 2_000);
    while (operations.count === 0) await new Promise(setImmediate);
    const second = await stage("slow");
    assert.equal(second?.code, status.ABORTED);
    assert.match(second.details, /volume "slow": NodeStageVolume is running since \d+ s; try again/);
    assert.equal(await stage("other"), null);
    release.resolve();
    assert.equal(await slow, null);
    assert.equal(operations.count, 0);
  });

  it("tells its handler when the caller's deadline has passed, and keeps the volume locked until that has ended", async () => {
    const error = await stage("slow", 50);
    assert.equal(error?.code, status.DEADLINE_EXCEEDED);
    while (aborted.length === 0) await new Promise(setImmediate);
    if (operations.count === 1) assert.equal((await stage("slow"))?.code, status.ABORTED);
    release.resolve();
    while (operations.count > 0) await new Promise(setImmediate);
    assert.equal(await stage("slow"), null);
  });

  it("never shows a secret in a log", async () => {
    assert.equal(await stage("v", 10_000, { password: "hunter2" }), null);
    assert.match(lines.join(""), /"secrets":\{"password":"\*\*\*"\}/);
    assert.doesNotMatch(lines.join(""), /hunter2/);
  });

  it("answers UNIMPLEMENTED for a method that is not in the proto", async () => {
    const identity = new IdentityClient(`unix:${server.path}`, credentials.createInsecure());
    const error = await new Promise<ServiceError | null>((resolve) =>
      identity.makeUnaryRequest(
        "/csi.v1.Node/NodeGetStorageHealth",
        () => Buffer.alloc(0),
        (bytes) => bytes,
        {},
        (failure) => resolve(failure),
      ),
    );
    identity.close();
    assert.equal(error?.code, status.UNIMPLEMENTED);
  });

  it("goes over a socket that only its owner may use", () => {
    assert.equal(statSync(server.path).mode & 0o777, 0o600);
  });

  it("takes the place of a socket that was left behind, and of nothing else", async () => {
    const path = join(directory, "other.sock");
    writeFileSync(path, "a file");
    await assert.rejects(new SocketServer(path).start(), /something that is no socket is there; remove it/);
  });
});
