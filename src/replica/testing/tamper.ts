/**
 * What happens behind a replica's back: somebody removes, changes or adds things in its tree. Works through a second
 * replica on the same tree (another client), at random places that follow from the draws.
 */
import { FileAttr, S_IFDIR, S_IFMT, S_IFREG } from "../../util/file-attr.ts";
import type { DirectoryEntries, Replica } from "../replica.ts";
import type { Choose } from "./random.ts";
import { ok, Place, root } from "./subject.ts";

export type Tampering = "remove" | "alter" | "attributes" | "add" | "replace-by-directory";

/** Does one such thing somewhere below the root, `.chiron` apart; answers what and where, null if there was nothing. */
export async function tamper(
  replica: Replica,
  choose: Choose,
  kinds: readonly Tampering[] = ["remove", "alter", "attributes", "add", "replace-by-directory"],
): Promise<string | null> {
  const kind = kinds[choose(kinds.length)] as Tampering;
  const places = await everyPlace(replica);
  const wanted = places.filter(({ type }) => (kind === "alter" ? type === S_IFREG : true));
  const victim = wanted[choose(wanted.length)];
  if (kind === "add") {
    const directories = [new Place(null, ""), ...places.filter((p) => p.type === S_IFDIR).map((p) => p.place)];
    const directory = directories[choose(directories.length)] as Place;
    const name = `added-${choose(1_000_000)}`;
    await ok(replica.close(await ok(replica.create(directory, name, 0o600, root, null))));
    return `add ${path(directory.child(name))}`;
  }
  if (victim === undefined) return null;
  const { place } = victim;
  const parent = place.parent as Place;
  switch (kind) {
    case "remove":
    case "replace-by-directory":
      await removeTree(replica, place);
      if (kind === "replace-by-directory") await ok(replica.mkdir(parent, place.name, 0o700, root, null));
      break;
    case "alter": {
      const handle = await ok(replica.open(place, "read-write"));
      await ok(replica.write(handle, Buffer.from(`tampered ${choose(1_000_000)}`), choose(10_000)));
      await ok(replica.close(handle));
      break;
    }
    case "attributes":
      await ok(replica.setattr(place, -1, { uid: 1 + choose(1000), mtime: { seconds: 1, nsec: 1 } }, null));
      break;
  }
  return `${kind} ${path(place)}`;
}

async function everyPlace(replica: Replica): Promise<{ place: Place; type: number }[]> {
  const all: { place: Place; type: number }[] = [];
  const walk = async (directory: Place) => {
    for (const place of await children(replica, directory)) {
      if (directory.parent === null && place.name === ".chiron") continue;
      const attr = new FileAttr();
      await ok(replica.getattr(place, attr));
      const type = attr.mode & S_IFMT;
      all.push({ place, type });
      if (type === S_IFDIR) await walk(place);
    }
  };
  await walk(new Place(null, ""));
  return all;
}

async function children(replica: Replica, directory: Place): Promise<Place[]> {
  const into: DirectoryEntries = { names: [], types: [], inos: [] };
  await ok(replica.readdir(directory, into));
  return into.names.sort().map((name) => directory.child(name));
}

async function removeTree(replica: Replica, place: Place): Promise<void> {
  const attr = new FileAttr();
  await ok(replica.getattr(place, attr));
  const parent = place.parent as Place;
  if ((attr.mode & S_IFMT) !== S_IFDIR) {
    await ok(replica.unlink(parent, place.name));
    return;
  }
  for (const child of await children(replica, place)) await removeTree(replica, child);
  await ok(replica.rmdir(parent, place.name));
}

function path(place: Place): string {
  return place.parent === null ? "" : `${path(place.parent)}/${place.name}`;
}
