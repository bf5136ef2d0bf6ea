// One server of orders. It is in the registry while it answers, and leaves before it stops.
import { createServer } from 'node:http';
import { connect } from 'rollcall';

const id = process.argv[2];
const server = createServer((request, response) => {
  setTimeout(() => response.end(JSON.stringify({ order: request.url.slice('/orders/'.length), from: id })), 10); // work
});
server.keepAliveTimeout = 60_000; // or a call may meet the end of a connection that nobody used for a while
await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));

const registry = await connect(); // ROLLCALL_REGISTRY
const endpoints = [`http://127.0.0.1:${server.address().port}`];
const registration = await registry.register({ name: 'orders', id, endpoints });

process.once('SIGTERM', async () => {
  await registration.drain(250); // out of traffic, and time for callers to hear of it
  await new Promise(setImmediate); // what came meanwhile is read
  server.close(); // calls under way end
  await registry.close();
});
