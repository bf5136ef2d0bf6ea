// Starts an etcd, unless ROLLCALL_REGISTRY names one, two inventories and the orders, sends some orders, stops one
// inventory while orders come in, and ends everything. Needs no docker: the etcd is $ETCD, or that of the tests of this
// repository (`make servers`), or the one on the PATH.

import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

const here = fileURLToPath(new URL('..', import.meta.url));
const children = [];
let folder;

function start(name, command, args, env = {}) {
  const child = spawn(command, args, { cwd: here, env: { ...process.env, NO_COLOR: '1', ...env } });
  children.push(child);
  child.output = '';
  child.on('error', (error) => {
    child.output += error.message;
  });
  for (const stream of [child.stdout, child.stderr]) {
    stream?.on('data', (text) => {
      child.output += text;
      if (name) process.stdout.write(String(text).replace(/^(?=.)/gm, `[${name}] `));
    });
  }
  return child;
}

async function until(what, look) {
  for (const end = Date.now() + 30_000; Date.now() < end; await delay(50)) {
    const found = await look();
    if (found) return found;
  }
  throw new Error(`waited in vain for ${what}`);
}

const freePort = () =>
  new Promise((resolve) => {
    const server = createServer().listen(0, '127.0.0.1', () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });

async function ownEtcd() {
  const built = join(here, '../../servers/bin/etcd');
  const program = process.env.ETCD ?? (existsSync(built) ? built : 'etcd');
  folder = mkdtempSync(join(tmpdir(), 'midway-orders-'));
  const [client, peer] = [await freePort(), await freePort()];
  const urls = [`http://127.0.0.1:${client}`, `http://127.0.0.1:${peer}`];
  const etcd = start('', program, [
    `--data-dir=${folder}`,
    `--listen-client-urls=${urls[0]}`,
    `--advertise-client-urls=${urls[0]}`,
    `--listen-peer-urls=${urls[1]}`,
    `--initial-advertise-peer-urls=${urls[1]}`,
    `--initial-cluster=default=${urls[1]}`,
  ]);
  await until('etcd', async () => {
    if (etcd.exitCode !== null || etcd.pid === undefined) throw new Error(`no etcd: ${etcd.output}`);
    return fetch(`${urls[0]}/health`).then(
      ({ ok }) => ok,
      () => false,
    );
  });
  return `etcd://127.0.0.1:${client}`;
}

async function stop(child) {
  if (child.exitCode !== null || child.signalCode !== null || child.pid === undefined) return;
  const over = new Promise((resolve) => child.once('exit', resolve));
  child.kill('SIGTERM');
  await Promise.race([over, delay(10_000, undefined, { ref: false })]); // the child holds this process meanwhile
  child.kill('SIGKILL');
}

try {
  const ROLLCALL_REGISTRY = process.env.ROLLCALL_REGISTRY ?? (await ownEtcd());
  const PORT = String(await freePort());
  const env = { ROLLCALL_REGISTRY, PORT };
  const inventories = ['inventory 1', 'inventory 2'].map((name) =>
    start(name, process.execPath, ['dist/bootstrap.js', 'inventory'], env),
  );
  const orders = start('orders', process.execPath, ['dist/bootstrap.js', 'orders'], env);
  const who = async (name) => (await fetch(`http://127.0.0.1:${PORT}/orders/who/${name}`)).json();
  await until('the services', () => /orders at/.test(orders.output));
  await until('both inventories', async () => (await who('inventory')).length === 2);

  const answers = {};
  const order = async () => {
    const response = await fetch(`http://127.0.0.1:${PORT}/orders`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ item: 'lamp', quantity: 2 }),
    });
    if (!response.ok) throw new Error(`order refused: ${response.status} ${await response.text()}`);
    const { by } = await response.json();
    answers[by] = (answers[by] ?? 0) + 1;
  };
  for (let i = 0; i < 10; i++) await order();
  console.log('10 orders:', answers);
  if (Object.keys(answers).length !== 2) throw new Error('expected both inventories to be asked');

  let stopped = false;
  const leaving = stop(inventories[0]).then(() => {
    stopped = true;
  });
  let during = 0;
  for (; !stopped; during++) await order();
  await leaving;
  console.log(`${during} orders while one inventory stopped, none lost; left:`, (await who('inventory')).length);
} catch (error) {
  console.error(error);
  process.exitCode = 1;
} finally {
  await Promise.all(children.slice(1).map(stop));
  await Promise.all(children.map(stop));
  if (folder) rmSync(folder, { recursive: true, force: true });
}
