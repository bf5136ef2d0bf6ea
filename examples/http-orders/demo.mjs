// Starts three servers and a client, restarts each server while the client calls, and says what the client counted.
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { connect } from 'rollcall';

if (!process.env.ROLLCALL_REGISTRY) {
  console.error('Name a registry: ROLLCALL_REGISTRY=etcd://127.0.0.1:2379 node examples/http-orders/demo.mjs');
  process.exit(1);
}
const file = (name) => fileURLToPath(new URL(name, import.meta.url));
const children = [];
process.on('exit', () => {
  for (const child of children) child.kill('SIGKILL');
});

function start(name, ...args) {
  const child = fork(file(name), args);
  children.push(child);
  return child;
}

const registry = await connect();
const orders = registry.service('orders', { allowLocal: true });

/** Waits until the registry has these, and no other. */
async function listed(...ids) {
  const deadline = Date.now() + 30_000;
  const isSo = () => orders.instances.length === ids.length && orders.instances.every(({ id }) => ids.includes(id));
  while (!isSo()) {
    if (Date.now() > deadline) throw new Error(`waited in vain for ${ids}`);
    await delay(20);
  }
}

const running = ['orders-1', 'orders-2', 'orders-3'];
const servers = running.map((id) => start('server.mjs', id));
await listed(...running);
const client = start('client.mjs');
const answered = new Set();
client.on('message', (id) => answered.add(id));

/** Waits until each of these has answered the client. */
async function called(...ids) {
  const deadline = Date.now() + 60_000;
  while (!ids.every((id) => answered.has(id))) {
    if (Date.now() > deadline) throw new Error(`the client did not call all of ${ids}`);
    await delay(20);
  }
}
await called(...running);

for (const [n, old] of servers.entries()) {
  console.log(`restarting ${running[n]}`);
  old.kill('SIGTERM');
  await once(old, 'exit');
  running[n] = `orders-${n + 4}`;
  start('server.mjs', running[n]);
  await listed(...running);
  await called(running[n]);
}

client.kill('SIGTERM'); // its last line is the count
await once(client, 'exit');
for (const child of children) child.kill('SIGTERM');
await registry.close();
