import assert from "node:assert/strict";
import { mkdtempSync, rmSync, statSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { silentLogger } from "../util/logger.ts";
import { ControlClient } from "./control-client.ts";
import { type CallHandler, ControlServer } from "./control-server.ts";
import { FailureError } from "./failure.ts";

async function serve(context: TestContext, handler: CallHandler): Promise<string> {
  const directory = mkdtempSync(join(tmpdir(), "chiron-control-"));
  const server = new ControlServer(handler, silentLogger);
  const path = join(directory, "control.sock");
  await server.listen(path);
  context.after(async () => {
    await server.close();
    rmSync(directory, { recursive: true });
  });
  return path;
}

test("calls are answered, with progress, also several at once on one connection", async (context) => {
  const path = await serve(context, async (call, { progress }) => {
    progress(1);
    progress(2);
    await new Promise((resolve) => setTimeout(resolve, call.params.full ? 20 : 0));
    return { method: call.method, replica: call.params.replica };
  });
  assert.equal(statSync(path).mode & 0o777, 0o600);
  const client = await ControlClient.connect(path);
  const seen: unknown[] = [];
  const slow = client.call("resync", { params: { replica: "ä", full: true }, onProgress: (p) => seen.push(p) });
  assert.deepEqual(await client.call("status"), { method: "status" });
  assert.deepEqual(await slow, { method: "resync", replica: "ä" });
  assert.deepEqual(seen, [1, 2]);
  client.close();
});

test("a failure arrives with its code, a bug as internal", async (context) => {
  const path = await serve(context, async (call) => {
    throw call.method === "status" ? new FailureError("quorum", "one replica is missing") : new Error("oops");
  });
  const client = await ControlClient.connect(path);
  await assert.rejects(client.call("status"), (error: FailureError) => error.failure.code === "quorum");
  await assert.rejects(client.call("verify"), (error: FailureError) => error.failure.code === "internal");
  client.close();
});

test("a call that is not answered ends at its timeout, and with the connection", async (context) => {
  const path = await serve(context, (_call, { signal }) => {
    return new Promise((resolve) => signal.addEventListener("abort", resolve));
  });
  const client = await ControlClient.connect(path);
  await assert.rejects(client.call("status", { timeoutMs: 10 }), /in time/);
  const pending = client.call("status");
  client.close();
  await assert.rejects(pending, (error: FailureError) => error.failure.code === "not-mounted");
});

test("nobody there is told as not mounted", async () => {
  await assert.rejects(
    ControlClient.connect("/nonexistent/control.sock"),
    (error: FailureError) => error.failure.code === "not-mounted",
  );
});

test("garbage ends the connection and harms nobody else", async (context) => {
  const path = await serve(context, async () => "fine");
  for (const garbage of ["nonsense\n", "{}\n", "null\n", `${"x".repeat(100_000)}`]) {
    const socket = connect(path);
    socket.on("error", () => {});
    socket.resume();
    socket.write(garbage);
    await new Promise((resolve) => socket.once("close", resolve));
  }
  const client = await ControlClient.connect(path);
  assert.equal(await client.call("ping"), "fine");
  client.close();
});
