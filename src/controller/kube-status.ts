/** The API server's refusals as CSI's statuses. */
import { CsiError } from "../csi/status.ts";
import { KubeError } from "../kube/client.ts";

export async function fromKube<T>(call: Promise<T>): Promise<T> {
  try {
    return await call;
  } catch (error) {
    if (!(error instanceof KubeError))
      throw new CsiError("UNAVAILABLE", (error as Error).message, (error as Error).cause);
    if (error.code === 409) throw new CsiError("ABORTED", error.message);
    if (error.code === 422 || error.code === 400) throw new CsiError("INVALID_ARGUMENT", error.message);
    if (error.code === 404) throw new CsiError("NOT_FOUND", error.message);
    if (error.code === 401 || error.code === 403) throw new CsiError("PERMISSION_DENIED", error.message);
    throw new CsiError("UNAVAILABLE", error.message);
  }
}
