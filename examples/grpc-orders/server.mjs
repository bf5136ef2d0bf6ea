// One server of orders. It is in the registry while it answers, and leaves before it stops.
import { Server, ServerCredentials } from '@grpc/grpc-js';
import { connect } from 'rollcall';
import { Orders } from './orders.mjs';

const id = process.argv[2];
const server = new Server();
server.addService(Orders.service, {
  get: (_, answer) => setTimeout(() => answer(null, { value: id }), 10), // work
});
const port = await new Promise((resolve, reject) => {
  const bound = (error, port) => (error ? reject(error) : resolve(port));
  server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), bound);
});

const registry = await connect(); // ROLLCALL_REGISTRY
const endpoints = [`grpc://127.0.0.1:${port}`];
const registration = await registry.register({ name: 'orders', id, endpoints });

process.once('SIGTERM', async () => {
  await registration.drain(250); // out of traffic, and time for callers to hear of it
  await new Promise((resolve) => server.tryShutdown(resolve)); // calls under way end
  await registry.close();
});
