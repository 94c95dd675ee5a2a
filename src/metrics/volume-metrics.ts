/**
 * The figures of one volume process, as plain counters that layers add to, and the whole as Prometheus reads it. What
 * exists, with its labels, is declared in `exposition.ts`; prom-client is loaded when somebody asks for the first time.
 */
import { LatencyHistogram } from "./latency-histogram.ts";

/** What a layer adds to: one for the kernel's requests by operation, one for each replica's calls. */
export class CallRecorder {
  readonly byName = new Map<string, CallFigures>();

  /** For one kind of call, to be kept by whoever makes many of it. */
  of(name: string): CallFigures {
    let figures = this.byName.get(name);
    if (figures === undefined) {
      figures = new CallFigures();
      this.byName.set(name, figures);
    }
    return figures;
  }
}

export class CallFigures {
  readonly durations = new LatencyHistogram();
  errors = 0;
  /** Bytes read or written, where the call does that. */
  bytes = 0;

  record(microseconds: number, result: number): void {
    this.durations.record(microseconds);
    if (result < 0) this.errors++;
  }
}

/** How things stand at the time of a scrape, as the volume's status has it. */
export interface VolumeFacts {
  readonly volume: string;
  readonly state: string;
  readonly minInSyncReplicas: number;
  readonly replicas: readonly {
    readonly name: string;
    readonly state: string;
    readonly freeBytes: number | null;
    readonly progress: {
      readonly filesRemaining: number;
      readonly bytesRemaining: number;
      readonly percent: number;
    } | null;
  }[];
  /** What is on record as missed, for each replica that is not in sync. */
  readonly dirty: readonly { readonly name: string; readonly files: number; readonly bytes: number }[];
}

export class VolumeMetrics {
  /** Requests of the kernel: "lookup", "write", … */
  readonly operations = new CallRecorder();
  readonly #replicas = new Map<string, CallRecorder>();
  readonly #expulsions = new Map<string, { replica: string; reason: string; count: number }>();

  replica(name: string): CallRecorder {
    let recorder = this.#replicas.get(name);
    if (recorder === undefined) {
      recorder = new CallRecorder();
      this.#replicas.set(name, recorder);
    }
    return recorder;
  }

  expelled(replica: string, reason: string): void {
    const key = `${replica} ${reason}`;
    const entry = this.#expulsions.get(key) ?? { replica, reason, count: 0 };
    entry.count++;
    this.#expulsions.set(key, entry);
  }

  get replicas(): ReadonlyMap<string, CallRecorder> {
    return this.#replicas;
  }

  get expulsions(): readonly { readonly replica: string; readonly reason: string; readonly count: number }[] {
    return [...this.#expulsions.values()];
  }

  async text(facts: VolumeFacts): Promise<string> {
    const { expose } = await import("./exposition.ts");
    return await expose(this, facts);
  }
}
