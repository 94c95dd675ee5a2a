/**
 * Tells the kubelet that the plugin is there, as node-driver-registrar does: the kubelet finds a socket in its
 * `plugins_registry` directory, asks who we are, and says how that went. When it starts again it asks again.
 */
import { csiDriverName } from "../api/names.ts";
import { type RegistrationServer, RegistrationService } from "../csi/generated/pluginregistration.ts";
import { SocketServer } from "../csi/server.ts";
import { type Handlers, serve, type UnaryOptions } from "../csi/unary.ts";
import type { Logger } from "../util/logger.ts";

export interface RegistrationOptions {
  /** The kubelet's `plugins_registry`, as this process sees it. */
  readonly directory: string;
  /** The plugin's CSI socket, as the kubelet sees it. */
  readonly endpoint: string;
  readonly logger: Logger;
  readonly unary: UnaryOptions;
  readonly onRegistered: () => void;
}

export class Registration {
  readonly #server: SocketServer;
  #problem: string | null = "the kubelet has not asked yet";

  constructor(options: RegistrationOptions) {
    const handlers: Handlers<RegistrationServer> = {
      getInfo: () => ({
        type: "CSIPlugin",
        name: csiDriverName,
        endpoint: options.endpoint,
        supportedVersions: ["1.0.0"],
      }),
      notifyRegistrationStatus: ({ pluginRegistered, error }) => {
        this.#problem = pluginRegistered ? null : `the kubelet refused the plugin: ${error}`;
        if (pluginRegistered) {
          options.logger.info("registered with the kubelet");
          options.onRegistered();
        } else options.logger.error("the kubelet refused the plugin", { error });
        return {};
      },
    };
    this.#server = new SocketServer(`${options.directory}/${csiDriverName}-reg.sock`);
    this.#server.add(RegistrationService, serve(handlers, options.unary));
  }

  /** Why the node cannot use the plugin, or null. */
  get problem(): string | null {
    return this.#problem;
  }

  start(): Promise<void> {
    return this.#server.start();
  }
  stop(): Promise<void> {
    return this.#server.stop();
  }
}
