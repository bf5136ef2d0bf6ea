// The grpc-js that the tests have installed: the package itself has none.
import { createRequire } from 'node:module';

/** `undefined` where it is not installed. */
export function grpcModule() {
  try {
    return createRequire(new URL('../../build/test-projects/grpc/package.json', import.meta.url))('@grpc/grpc-js');
  } catch {
    return undefined;
  }
}

const same = (bytes) => bytes;

/** One method, whose messages are bytes. */
export const METHODS = {
  get: {
    path: '/orders.v1.Orders/Get',
    requestStream: false,
    responseStream: false,
    requestSerialize: same,
    requestDeserialize: same,
    responseSerialize: same,
    responseDeserialize: same,
  },
};
