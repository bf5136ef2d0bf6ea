// Three gRPC servers in one process, which answer at once.
import { serve } from '../support/child.mjs';
import { grpcModule, METHODS } from '../support/grpc.mjs';

const grpc = grpcModule();

serve({
  start: () =>
    Promise.all(
      [1, 2, 3].map(() => {
        const server = new grpc.Server();
        server.addService(METHODS, { get: (call, answer) => answer(null, call.request) });
        return new Promise((resolve, reject) => {
          const bound = (error, port) => (error ? reject(error) : resolve(port));
          server.bindAsync('127.0.0.1:0', grpc.ServerCredentials.createInsecure(), bound);
        });
      }),
    ),
});
