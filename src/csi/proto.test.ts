/** Our protos against the published ones: what we name is there, with the same numbers, types and options. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, it } from "node:test";
import protobuf from "protobufjs";

const specVersion = "v1.13.0";
const kubeletVersion = "v0.34.4";

/** The module's folder where Go has it already; nothing is fetched by a test. */
function goModule(path: string, version: string): string | null {
  const ran = spawnSync("go", ["env", "GOMODCACHE"], { encoding: "utf8" });
  const directory = join((ran.stdout ?? "").trim(), `${path}@${version}`);
  return ran.status === 0 && existsSync(directory) ? directory : null;
}

/** `message.field` → everything that matters on the wire, for a whole file. */
function facts(file: string): Map<string, string> {
  const found = new Map<string, string>();
  const { root } = protobuf.parse(readFileSync(file, "utf8"), { keepCase: true });
  const options = (object: protobuf.ReflectionObject) =>
    JSON.stringify(
      Object.entries(object.options ?? {})
        .filter(([name]) => /^\(/.test(name))
        .sort(([a], [b]) => (a < b ? -1 : 1)),
    );
  const walk = (object: protobuf.ReflectionObject) => {
    const name = object.fullName;
    if (object instanceof protobuf.Enum) {
      for (const [word, number] of Object.entries(object.values)) {
        const more = JSON.stringify(
          Object.entries(object.valuesOptions?.[word] ?? {}).sort(([a], [b]) => (a < b ? -1 : 1)),
        );
        found.set(`${name}.${word}`, `= ${number} ${more}`);
      }
    } else if (object instanceof protobuf.Type) {
      found.set(name, `message ${options(object)}`);
      for (const field of object.fieldsArray) {
        const type = field instanceof protobuf.MapField ? `map<${field.keyType},${field.type}>` : field.type;
        const plain = type.replace(/^\./, "");
        const oneof = field.partOf?.name ?? "";
        found.set(`${name}.${field.name}`, `= ${field.id} ${plain} ${field.repeated} ${oneof} ${options(field)}`);
      }
    } else if (object instanceof protobuf.Service) {
      for (const method of object.methodsArray) {
        const kind = `${method.requestType} → ${method.responseType} ${method.requestStream ?? false} ${method.responseStream ?? false}`;
        found.set(`${name}.${method.name}`, `${kind} ${options(method)}`);
      }
    }
    if (object instanceof protobuf.Namespace) for (const inner of object.nestedArray) walk(inner);
  };
  for (const object of root.nestedArray) walk(object);
  return found;
}

const protos = [
  {
    ours: "csi.proto",
    module: "github.com/container-storage-interface/spec",
    version: specVersion,
    theirs: "csi.proto",
  },
  {
    ours: "pluginregistration.proto",
    module: "k8s.io/kubelet",
    version: kubeletVersion,
    theirs: "pkg/apis/pluginregistration/v1/api.proto",
  },
];

describe("our proto", () => {
  for (const { ours, module, version, theirs } of protos) {
    const directory = goModule(module, version);
    const skip =
      directory === null ? `LEFT OUT: Go's module cache has no ${module}@${version} (go mod download)` : false;
    if (skip !== false) process.stderr.write(`\n*** ${skip} ***\n`);
    it(`${ours} says nothing that ${module} ${version} does not`, { skip }, () => {
      const mine = facts(join(import.meta.dirname, "proto", ours));
      const published = facts(join(directory ?? "", theirs));
      assert.ok(mine.size > 5);
      for (const [name, fact] of mine) assert.equal(fact, published.get(name), name);
      // Of a message that we have, we have all of it.
      for (const name of published.keys()) {
        const message = name.slice(0, name.lastIndexOf("."));
        if (published.get(message)?.startsWith("message") && mine.has(message))
          assert.ok(mine.has(name), `${name} is missing`);
      }
    });
  }
});
