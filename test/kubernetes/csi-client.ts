/** ts-proto's CSI clients with promises. */
import { credentials, type ServiceError } from "@grpc/grpc-js";
import { ControllerClient, IdentityClient, NodeClient } from "../../src/csi/generated/csi.ts";

type Unary<Q, A> = (request: Q, callback: (error: ServiceError | null, answer: A) => void) => unknown;

export interface CsiClients extends Disposable {
  readonly identity: IdentityClient;
  readonly controller: ControllerClient;
  readonly node: NodeClient;
}

export function csiClients(socket: string): CsiClients {
  const make = [IdentityClient, ControllerClient, NodeClient] as const;
  const [identity, controller, node] = make.map((Client) => new Client(`unix:${socket}`, credentials.createInsecure()));
  const clients = { identity, controller, node } as unknown as Omit<CsiClients, keyof Disposable>;
  return {
    ...clients,
    [Symbol.dispose]() {
      for (const client of Object.values(clients)) client.close();
    },
  };
}

/** The generated methods' last overload, which is the one that `infer` sees. */
type Method<Q, A> = (
  request: Q,
  metadata: never,
  options: never,
  callback: (error: never, answer: A) => void,
) => unknown;

/** `call(clients.node, "nodeGetInfo", {})`: rejects with the gRPC error. */
export function call<C, M extends keyof C>(
  client: C,
  method: M,
  request: C[M] extends Method<infer Q, never> ? Q : never,
): Promise<C[M] extends Method<never, infer A> ? A : never> {
  return new Promise((resolve, reject) => {
    (client[method] as Unary<unknown, never>).call(client, request, (error, answer) =>
      error ? reject(error) : resolve(answer),
    );
  });
}
