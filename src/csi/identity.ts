/** CSI's Identity service: who we are, and which services this process has. */
import {
  type GetPluginCapabilitiesResponse,
  type IdentityServer,
  PluginCapability_Service_Type,
  PluginCapability_VolumeExpansion_Type,
} from "./generated/csi.ts";
import type { Handlers } from "./unary.ts";

export interface IdentityOptions {
  readonly driverName: string;
  readonly version: string;
  readonly hasController: boolean;
  /** False while the process cannot serve yet; callers ask again. */
  readonly ready: () => boolean;
}

export function identityHandlers(options: IdentityOptions): Handlers<IdentityServer> {
  const capabilities: GetPluginCapabilitiesResponse["capabilities"] = [
    ...(options.hasController ? [{ service: { type: PluginCapability_Service_Type.CONTROLLER_SERVICE } }] : []),
    { service: { type: PluginCapability_Service_Type.VOLUME_ACCESSIBILITY_CONSTRAINTS } },
    { volumeExpansion: { type: PluginCapability_VolumeExpansion_Type.ONLINE } },
  ];
  return {
    getPluginInfo: () => ({ name: options.driverName, vendorVersion: options.version, manifest: {} }),
    getPluginCapabilities: () => ({ capabilities }),
    probe: () => ({ ready: options.ready() }),
  };
}
