/**
 * The ReplicatedVolume, `chiron.storage/v1alpha1`: the one source of its types, its CRD, its validation and its
 * reference. Rules that one field can tell are JSON schema; rules over several fields, or over a change, are CEL, so
 * that the API server enforces all of them. Every list and string is bounded: CEL's cost is estimated from the bounds.
 */
import { z } from "zod";
import { quantityPattern } from "./quantity.ts";

interface CelRule {
  readonly rule: string;
  readonly message: string;
  readonly fieldPath?: string;
}
const cel = (...rules: readonly CelRule[]) => ({ "x-kubernetes-validations": rules });
const mapList = (key: string) => ({ "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key] });
const setList = { "x-kubernetes-list-type": "set" };
const atomicList = { "x-kubernetes-list-type": "atomic" };

const dnsLabel = z
  .string()
  .min(1)
  .max(63)
  .meta(
    cel({
      rule: "self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",
      message: "must be a DNS label: lower-case letters, digits and '-', beginning and ending with a letter or digit",
    }),
  );
const objectName = z.string().min(1).max(253);
const quantity = z.union([z.int(), z.string()]).meta({
  "x-kubernetes-int-or-string": true,
  pattern: quantityPattern,
  maxLength: 32,
});
const absolutePath = (description: string) =>
  z
    .string()
    .min(1)
    .max(1024)
    .meta({
      description,
      ...cel({
        rule: "self.startsWith('/') && !self.contains('/../') && !self.endsWith('/..')",
        message: "must be an absolute path without '..'",
      }),
    });
const time = z.string().meta({ format: "date-time" });

const nfs = z
  .object({
    server: z.string().min(1).max(253).describe("Host name or address of the NFS server."),
    path: absolutePath("The exported directory, as the server names it."),
    mountOptions: z
      .array(z.string().min(1).max(64))
      .max(16)
      .optional()
      .meta({ description: "Options of the NFS client, such as `vers=4.1`.", ...atomicList }),
  })
  .meta({
    description: "A directory that an NFS server exports.",
    ...cel({
      rule: "self.server == oldSelf.server && self.path == oldSelf.path",
      message: "the place of a replica cannot be changed; add a replica with another name, and remove this one",
    }),
  });

const persistentVolume = z.object({ name: objectName.describe("Name of the PersistentVolume.") }).meta({
  description: "A PersistentVolume of kind nfs, local or hostPath.",
  ...cel({
    rule: "self.name == oldSelf.name",
    message: "the place of a replica cannot be changed; add a replica with another name, and remove this one",
  }),
});

const persistentVolumeClaim = z
  .object({
    namespace: z.string().min(1).max(63).describe("Namespace of the claim."),
    name: objectName.describe("Name of the claim."),
  })
  .meta({
    description: "The volume that a claim is bound to.",
    ...cel({
      rule: "self.__namespace__ == oldSelf.__namespace__ && self.name == oldSelf.name",
      message: "the place of a replica cannot be changed; add a replica with another name, and remove this one",
    }),
  });

const hostPath = z
  .object({
    path: absolutePath("The directory on that node."),
    node: objectName.describe("Name of the node that has the directory."),
  })
  .meta({
    description: "A plain directory of one node.",
    ...cel({
      rule: "self.path == oldSelf.path && self.node == oldSelf.node",
      message: "the place of a replica cannot be changed; add a replica with another name, and remove this one",
    }),
  });

const replica = z
  .object({
    name: dnsLabel.describe("Name of the replica within the volume; it stays with its contents."),
    nfs: nfs.optional(),
    persistentVolume: persistentVolume.optional(),
    persistentVolumeClaim: persistentVolumeClaim.optional(),
    hostPath: hostPath.optional(),
    readPriority: z
      .enum(["Normal", "Slow"])
      .default("Normal")
      .describe("A `Slow` replica takes every change, and is read only when all others are out."),
  })
  .meta(
    cel(
      {
        rule: "[has(self.nfs), has(self.persistentVolume), has(self.persistentVolumeClaim), has(self.hostPath)].filter(x, x).size() == 1",
        message: "exactly one of nfs, persistentVolume, persistentVolumeClaim and hostPath must be given",
      },
      {
        rule: "has(self.nfs) == has(oldSelf.nfs) && has(self.persistentVolume) == has(oldSelf.persistentVolume) && has(self.persistentVolumeClaim) == has(oldSelf.persistentVolumeClaim) && has(self.hostPath) == has(oldSelf.hostPath)",
        message: "the place of a replica cannot be changed; add a replica with another name, and remove this one",
      },
    ),
  );

const differentPlaces = (kind: string, fields: readonly string[]): CelRule => ({
  rule: `self.replicas.all(a, !has(a.${kind}) || self.replicas.exists_one(b, has(b.${kind}) && ${fields
    .map((field) => `a.${kind}.${field} == b.${kind}.${field}`)
    .join(" && ")}))`,
  message: `two replicas must not be at the same place: their ${kind} is the same`,
  fieldPath: ".replicas",
});

const spec = z
  .object({
    capacity: quantity.meta({
      description: "How much the volume may hold; it can only grow. Writes beyond it get ENOSPC, and `df` shows it.",
      ...cel(
        {
          rule: "quantity(string(self)).isGreaterThan(quantity('0'))",
          message: "must be more than 0",
        },
        {
          rule: "quantity(string(self)).compareTo(quantity(string(oldSelf))) >= 0",
          message: "can only grow: a file system that holds data is never shrunk",
        },
      ),
    }),
    accessModes: z
      .array(z.enum(["ReadWriteOnce", "ReadWriteOncePod", "ReadOnlyMany", "ReadWriteMany"]))
      .min(1)
      .max(4)
      .default(["ReadWriteOnce"])
      .meta({
        description: "How pods may use the volume.",
        ...setList,
        ...cel({
          rule: "!('ReadWriteOncePod' in self) || size(self) == 1",
          message: "ReadWriteOncePod cannot be combined with other access modes",
        }),
      }),
    replicas: z
      .array(replica)
      .min(1)
      .max(8)
      .meta({ description: "The places that each hold the whole tree.", ...mapList("name") }),
    subdirectory: z
      .string()
      .min(1)
      .max(255)
      .optional()
      .meta({
        description: "The directory below each replica's place that holds the tree; without it, the place itself does.",
        ...cel(
          { rule: "self == oldSelf", message: "cannot be changed" },
          {
            rule: "!self.startsWith('/') && !self.split('/').exists(part, part == '..' || part == '.' || part == '' || part == '.chiron')",
            message: "must be a relative path without '.', '..' or '.chiron'",
          },
        ),
      }),
    adoptFrom: z
      .string()
      .min(1)
      .max(63)
      .optional()
      .describe("The replica whose existing files the others are filled with when the volume is first used."),
    source: z
      .object({ snapshot: objectName.describe("Name of the ReplicatedVolumeSnapshot.") })
      .optional()
      .meta({
        description: "What the new volume is filled with; set when a claim names a snapshot or another claim.",
        ...cel({ rule: "self == oldSelf", message: "cannot be changed" }),
      }),
    minInSyncReplicas: z.int().min(1).max(8).optional().meta({
      format: "int32",
      description:
        "With fewer replicas in sync the volume turns read-only. Default: 1 for one or two replicas, a majority from three on.",
    }),
    readPolicy: z
      .enum(["RoundRobin", "Nearest", "LowestLatency"])
      .default("RoundRobin")
      .describe("Which in-sync replica a file is read from."),
    fullPolicy: z
      .enum(["FailWrites", "DropReplica"])
      .default("FailWrites")
      .describe("When one replica is full: refuse writes to all, or go on without it."),
    writeCache: z
      .enum(["None", "WriteBack"])
      .default("None")
      .describe("`WriteBack` lets the kernel collect writes until fsync, close or memory pressure."),
    resync: z
      .object({
        bandwidth: quantity.optional().meta({ description: "At most so many bytes each second, such as `100M`." }),
        mode: z
          .enum(["Automatic", "Manual"])
          .default("Automatic")
          .describe("`Manual` leaves a returned replica out until `kubectl chiron resync`."),
      })
      .optional()
      .describe("How a replica that was left behind is brought up to date."),
    scrub: z
      .object({
        schedule: z
          .string()
          .min(9)
          .max(128)
          .meta({
            description: "When to compare all replicas: five cron fields in UTC, such as `0 3 * * 0`.",
            ...cel({
              rule: "self.matches('^[-0-9*/,A-Za-z]+( [-0-9*/,A-Za-z]+){4}$')",
              message: "must be five cron fields: minute hour day-of-month month day-of-week",
            }),
          }),
      })
      .optional()
      .describe("Regular comparison of the replicas."),
    reclaimPolicy: z
      .enum(["Retain", "Delete"])
      .default("Retain")
      .describe("What happens to the trees when the volume is deleted. `Delete` needs a `subdirectory`."),
    claimRef: z
      .object({
        namespace: z.string().min(1).max(63).describe("Namespace of the claim."),
        name: objectName.describe("Name of the claim."),
      })
      .optional()
      .describe("The only claim that may bind to the volume."),
  })
  .meta(
    cel(
      {
        rule: "!has(self.minInSyncReplicas) || self.minInSyncReplicas <= size(self.replicas)",
        message: "minInSyncReplicas cannot be more than there are replicas",
        fieldPath: ".minInSyncReplicas",
      },
      {
        rule: "self.replicas.exists(r, oldSelf.replicas.exists(o, o.name == r.name))",
        message: "at least one replica must stay: the others are filled from it",
        fieldPath: ".replicas",
      },
      {
        rule: "has(self.subdirectory) == has(oldSelf.subdirectory)",
        message: "cannot be changed",
        fieldPath: ".subdirectory",
      },
      {
        rule: "self.reclaimPolicy != 'Delete' || has(self.subdirectory)",
        message: "reclaimPolicy Delete needs a subdirectory: the root of an export is never deleted",
        fieldPath: ".reclaimPolicy",
      },
      {
        rule: "!has(self.adoptFrom) || self.replicas.exists(r, r.name == self.adoptFrom)",
        message: "adoptFrom must name one of the replicas",
        fieldPath: ".adoptFrom",
      },
      differentPlaces("nfs", ["server", "path"]),
      differentPlaces("persistentVolume", ["name"]),
      differentPlaces("persistentVolumeClaim", ["__namespace__", "name"]),
      differentPlaces("hostPath", ["node", "path"]),
    ),
  );

const progress = z.object({
  percent: z.int().min(0).max(100).meta({ format: "int32" }),
  filesRemaining: z.int().min(0).meta({ format: "int64" }),
  bytesRemaining: z.int().min(0).meta({ format: "int64" }),
});

const replicaStatus = z.object({
  name: z.string().max(63).describe("Name of the replica."),
  state: z
    .enum(["InSync", "OutOfSync", "Syncing", "Unreachable", "Unknown"])
    .describe("`Unknown` while no node uses the volume."),
  reason: z.string().max(64).optional().describe("Why it is not in sync."),
  message: z.string().max(1024).optional().describe("What was seen, and what to do."),
  since: time.optional().describe("When it entered this state."),
  progress: progress.optional().describe("How far the resync is."),
  freeBytes: z.int().min(0).optional().meta({ format: "int64", description: "What is free on its file system." }),
});

const place = z.object({
  nfs: z
    .object({
      server: z.string().max(253),
      path: z.string().max(1024),
      mountOptions: z.array(z.string().max(256)).max(32).optional().meta(atomicList),
    })
    .optional(),
  hostPath: z.object({ path: z.string().max(1024), node: objectName }).optional(),
});

const replicaWithPlace = replicaStatus.extend({
  place: place.optional().describe("Where it is, once the controller has found that out."),
});

const nodeReport = z.object({
  name: objectName.describe("Name of the node."),
  state: z
    .enum(["Healthy", "Degraded", "Syncing", "QuorumLost", "Failed"])
    .describe("The volume, as this node sees it."),
  message: z.string().max(1024).optional().describe("Why it is in this state."),
  readOnly: z.boolean().optional().describe("The node may only read."),
  epoch: z.string().max(64).optional().describe("The membership that the node acts on."),
  reportedAt: time.describe("When the node last reported. A report that is not renewed ages out."),
  replicas: z
    .array(replicaStatus)
    .max(8)
    .optional()
    .meta({ description: "The replicas, as this node sees them.", ...mapList("name") }),
});

const membership = z.object({
  term: z.int().min(0).meta({ format: "int64", description: "Grows each time when a process takes the volume over." }),
  seq: z.int().min(0).meta({ format: "int64", description: "Grows with each change within the term." }),
  members: z
    .array(z.string().max(63))
    .max(8)
    .meta({ description: "The replicas that hold all that was ever acknowledged.", ...atomicList }),
  absent: z
    .array(
      z.object({
        name: z.string().max(63),
        reason: z.string().max(64).describe("Why it is not in sync."),
        since: time,
      }),
    )
    .max(16)
    .meta({ description: "The replicas that were left behind.", ...atomicList }),
  clean: z.boolean().describe("Unmounted in order since: the members are alike."),
  fenced: z
    .boolean()
    .describe("The members' servers shut an earlier holder out. Without that, a take-over rests on time."),
  mount: z.string().max(64).describe("The mount whose processes may change the record."),
  volumeId: z.string().max(64).describe("The id in the markers of the replicas."),
});

const condition = z.object({
  type: z.string().max(316),
  status: z.enum(["True", "False", "Unknown"]),
  observedGeneration: z.int().min(0).optional().meta({ format: "int64" }),
  lastTransitionTime: time,
  reason: z.string().min(1).max(1024),
  message: z.string().max(32768),
});

const status = z.object({
  phase: z
    .enum(["Pending", "Available", "Ready", "Degraded", "Syncing", "QuorumLost", "Failed", "Unknown", "Deleting"])
    .optional()
    .describe("The volume's health in one word; the conditions say more."),
  observedGeneration: z
    .int()
    .min(0)
    .optional()
    .meta({ format: "int64", description: "The generation of the spec that this status is about." }),
  holder: z.string().max(253).optional().describe("The node that may write."),
  membership: membership
    .optional()
    .describe("Who is in sync, on record: changed by the holder alone, and read by whoever follows it."),
  inSyncReplicas: z.string().max(16).optional().describe("In sync and wanted, such as `2/3`."),
  syncProgress: z.string().max(16).optional().describe("How far the resync is that is furthest behind, such as `42%`."),
  claim: z.string().max(320).optional().describe("The claim that is bound to the volume, as `namespace/name`."),
  replicas: z
    .array(replicaWithPlace)
    .max(8)
    .optional()
    .meta({ description: "Each replica's state.", ...mapList("name") }),
  initialized: z
    .boolean()
    .optional()
    .describe("The volume was mounted once: from then on a place without its tree is a missing one, never a new one."),
  filled: z.boolean().optional().describe("The new volume holds what `spec.source` names, on every replica."),
  fillMessage: z.string().max(1024).optional().describe("Why it is not filled yet."),
  treesMade: z
    .boolean()
    .optional()
    .describe("The volume may have its subdirectory in each place: set before they are made."),
  removeTrees: z
    .boolean()
    .optional()
    .describe("The volume is deleted and nothing uses it: its subdirectories may be removed now."),
  removedTrees: z
    .array(z.object({ replica: z.string().max(63) }))
    .max(8)
    .optional()
    .meta({ description: "Replicas of the deleted volume whose subdirectory is gone.", ...mapList("replica") }),
  nodes: z
    .array(nodeReport)
    .max(1024)
    .optional()
    .meta({ description: "What the nodes that use the volume report.", ...mapList("name") }),
  conditions: z
    .array(condition)
    .max(16)
    .optional()
    .meta({ description: "Ready, Degraded, Syncing, QuorumMet, Accepted.", ...mapList("type") }),
});

export const replicatedVolumeSchema = z
  .object({
    apiVersion: z.string().optional(),
    kind: z.string().optional(),
    metadata: z.record(z.string(), z.unknown()).optional(),
    spec: spec.describe("What is wanted."),
    status: status.optional().describe("What is there."),
  })
  .describe("One tree of files on several backends, each of which holds all of it.");

export type ReplicatedVolumeSpec = z.output<typeof spec>;
export type ReplicatedVolumeSpecInput = z.input<typeof spec>;
export type ReplicaSpec = z.output<typeof replica>;
export type ReplicatedVolumeStatus = z.output<typeof status>;
export type ReplicaReport = z.output<typeof replicaStatus>;
export type ReplicaStatus = z.output<typeof replicaWithPlace>;
export type Place = z.output<typeof place>;
export type NodeReport = z.output<typeof nodeReport>;
export type Condition = z.output<typeof condition>;
export type Phase = NonNullable<ReplicatedVolumeStatus["phase"]>;

export interface ObjectMeta {
  readonly name: string;
  readonly uid?: string;
  readonly generation?: number;
  readonly resourceVersion?: string;
  readonly creationTimestamp?: string;
  readonly deletionTimestamp?: string;
  readonly finalizers?: readonly string[];
  readonly labels?: Readonly<Record<string, string>>;
  readonly annotations?: Readonly<Record<string, string>>;
}
/** As the API server answers it: defaults are filled in. */
export interface ReplicatedVolume {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: ObjectMeta;
  readonly spec: ReplicatedVolumeSpec;
  readonly status?: ReplicatedVolumeStatus;
}
