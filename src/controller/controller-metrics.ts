/** What Prometheus is told of the controller and of the volumes, those included that no node has mounted. */
import { escapeLabel } from "../metrics/label.ts";

export interface MeasuredController {
  readonly leading: boolean;
  /** By name. */
  readonly phases: ReadonlyMap<string, string>;
  readonly queued: number;
  readonly failures: number;
  readonly requests: number;
}

export function renderControllerMetrics({ leading, phases, queued, failures, requests }: MeasuredController): string {
  const family = (name: string, type: "gauge" | "counter", help: string, samples: readonly string[]) =>
    [`# HELP ${name} ${help}`, `# TYPE ${name} ${type}`, ...samples.map((sample) => name + sample)].join("\n");
  return [
    family("chiron_controller_leading", "gauge", "Whether this process looks after the volumes.", [
      ` ${leading ? 1 : 0}`,
    ]),
    family("chiron_controller_queue_length", "gauge", "Volumes that wait to be looked at.", [` ${queued}`]),
    family(
      "chiron_controller_work_failures_total",
      "counter",
      "How often a volume could not be looked after, and was tried again.",
      [` ${failures}`],
    ),
    family("chiron_controller_api_requests_total", "counter", "Requests to the API server.", [` ${requests}`]),
    family(
      "chiron_controller_volume_phase",
      "gauge",
      "1 for the phase that the volume is in.",
      [...phases].map(([volume, phase]) => `{volume="${escapeLabel(volume)}",phase="${escapeLabel(phase)}"} 1`),
    ),
  ].join("\n");
}
