// Starts two servers in Node.js and one in Go, and a client; restarts each server while the client calls, and says what the
// client counted.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { connect } from 'rollcall';

const url = process.env.ROLLCALL_REGISTRY;
if (!url?.startsWith('etcd://')) {
  console.error('Name an etcd: ROLLCALL_REGISTRY=etcd://127.0.0.1:2379 npm run demo');
  process.exit(1);
}
const file = (path) => fileURLToPath(new URL(path, import.meta.url));
const go = process.env.GO_SERVER ?? file('../../servers/bin/peer');
const children = [];
process.on('exit', () => {
  for (const child of children) child.kill('SIGKILL');
});

function start(program, ...args) {
  const child = spawn(program, args, { stdio: ['ignore', 'inherit', 'inherit'] });
  children.push(child);
  return child;
}

const inNode = (id) => start(process.execPath, file('server.mjs'), id);
/** An application of Go Kratos, which takes the members of etcd as a list. */
function inGo(id) {
  const child = spawn(go, ['--endpoints', new URL(url).host, '--serve', id], { stdio: 'ignore' });
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

const makers = [inNode, inNode, inGo];
const running = ['node-1', 'node-2', 'go-3'];
const servers = running.map((id, n) => makers[n](id));
await listed(...running);
const client = spawn(process.execPath, [file('client.mjs')], { stdio: ['ignore', 'pipe', 'inherit'] });
children.push(client);
let last = '';
createInterface({ input: client.stdout }).on('line', (line) => {
  last = line;
  console.log(line);
});

/** Waits until the client was answered by these. */
async function heard(...ids) {
  const deadline = Date.now() + 30_000;
  while (!ids.every((id) => last.includes(`"${id}"`))) {
    if (Date.now() > deadline) throw new Error(`the client was never answered by all of ${ids}`);
    await delay(20);
  }
}
await heard(...running);

for (const [n, old] of servers.entries()) {
  console.log(`restarting ${running[n]}`);
  old.kill('SIGTERM');
  await once(old, 'exit');
  running[n] = running[n].replace(/\d/, `${n + 4}`);
  makers[n](running[n]);
  await listed(...running);
  await heard(...running);
}

client.kill('SIGTERM'); // its last line is the count
await once(client, 'close');
for (const child of children) child.kill('SIGTERM');
await registry.close();
