// What client and server share: the service of orders.proto, as proto-loader reads it.
import { fileURLToPath } from 'node:url';
import { loadPackageDefinition } from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';

const definition = loadSync(fileURLToPath(new URL('orders.proto', import.meta.url)));
export const { Orders } = loadPackageDefinition(definition).orders.v1;
