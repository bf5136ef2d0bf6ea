// The demo of configuration: a wrong value is refused, a canary tries a value before the others, a rollback takes it back, and
// a program starts while its store is stopped.
//
//   node examples/demo-coord.mjs [--etcd PROGRAM]
//
// PROGRAM is the etcd to start, as `servers/bin/etcd` (made by `scripts/servers etcd`); without it the store is the memory of
// this process, which can be away as well.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { parseArgs, styleText } from 'node:util';
import { MemoryServer } from 'rollcall';
import { connectCoord, defineConfig } from 'rollcall/coord';

const KEY = '/config/prod/orders/limits';
const started = performance.now();
const folder = mkdtempSync(join(tmpdir(), 'rollcall-demo-'));

// What zod, valibot or arktype would make: a Standard Schema.
const schema = {
  '~standard': {
    version: 1,
    vendor: 'demo',
    validate: (value) => {
      const isRate = Number.isInteger(value?.rate) && value.rate > 0;
      return isRate ? { value } : { issues: [{ message: 'expected a whole number above 0', path: ['rate'] }] };
    },
  },
};
const limits = defineConfig({ key: '/config/{env}/{service}/limits', schema });

// ---------------------------------------------------------------------------------------------------------- the story

async function story(store) {
  title(store.place);
  const instances = new Map();
  const open = async (name, labels = {}) => {
    const coord = await connectCoord({
      url: store.url,
      env: 'prod',
      service: 'orders',
      instance: name,
      labels,
      cacheDir: join(folder, name),
      connectTimeoutMs: 1000,
      reportApplied: true,
      logger: false, // the demo tells it itself
    });
    const ref = await coord.config.open(limits);
    ref.on('change', ({ rate }) => say(name, `rate is ${rate}`));
    ref.on('rejected', ({ issues }) =>
      say(name, `refused: ${issues[0].path} ${issues[0].message}; rate stays ${ref.value.rate}`),
    );
    ref.on('fresh', () => say(name, 'the store is there again'));
    say(name, `starts with rate ${ref.value.rate}${ref.stale ? `, from its ${ref.source}, stale` : ''}`);
    instances.set(name, { coord, ref });
    return ref;
  };
  const rates = () => [...instances.values()].map(({ ref }) => ref.value.rate).join(' ');
  const operator = await connectCoord({
    url: store.url,
    env: 'prod',
    service: 'orders',
    instance: 'ann',
    logger: false,
  });
  const { config } = operator;
  try {
    const good = await config.set(KEY, { rate: 100 }, { comment: 'to begin with' });
    step('Three instances open their limits; c is a canary.');
    for (const name of ['a', 'b']) await open(name);
    const canary = await open('c', { canary: 'true' });

    step('Somebody writes "rate": "many". Nobody ever sees it.');
    await config.set(KEY, { rate: 'many' }, { comment: 'a slip' });
    await until('the refusals', () => [...instances.values()].every(({ ref }) => ref.rejected));
    await until('the reports', async () => (await config.applied(limits)).filter((one) => one.rejected).length === 3);
    for (const { instance, revision } of await config.applied(limits))
      say('applied', `${instance} is at revision ${revision}`);

    step('It is taken back.');
    await config.rollback(KEY, good);
    await until('the good one', () => [...instances.values()].every(({ ref }) => !ref.rejected));
    for (const version of (await config.history(KEY)).toReversed()) {
      say(
        'history',
        `${version.revision} ${version.value ?? 'nothing'}${version.comment ? `  (${version.comment})` : ''}`,
      );
    }

    step('A higher rate is tried by the canary alone.');
    await config.set(`${KEY}/@canary=true`, { rate: 500 });
    await until('the canary', () => canary.value.rate === 500);
    say('all', `rates are ${rates()}`);

    step('It is good: all get it, in one transaction.');
    await config.setAll({ [KEY]: { rate: 500 }, [`${KEY}/@canary=true`]: null }, { comment: 'the canary was well' });
    await until('all', () => rates() === '500 500 500');
    say('all', `rates are ${rates()}`);

    step(`${store.place} goes away, and b starts anew.`);
    await store.stop();
    await instances.get('b').coord.close();
    const again = await open('b');
    await until('b to start from its file', () => again.source === 'file');

    step(`${store.place} comes back.`);
    await store.start();
    await until('b to be fresh', () => !again.stale);
    await config.set(KEY, { rate: 300 });
    await until('all', () => rates() === '300 300 300');
    say('all', `rates are ${rates()}`);
    console.log('\nNo instance was ever without a good value.');
  } finally {
    await Promise.all([...instances.values()].map(({ coord }) => coord.close()));
    await operator.close();
  }
}

// ---------------------------------------------------------------------------------------------------------- the store

function memory() {
  const server = MemoryServer.of('demo-coord');
  return {
    url: 'memory://demo-coord',
    place: 'The memory server',
    start: async () => server.setAway(false),
    stop: async () => server.setAway(true),
  };
}

async function etcd(program) {
  const [client, peer] = [await freePort(), await freePort()].map((port) => `http://127.0.0.1:${port}`);
  const args = ['--data-dir', join(folder, 'etcd'), '--log-level', 'error', '--name', 'demo'];
  args.push('--listen-client-urls', client, '--advertise-client-urls', client);
  args.push('--listen-peer-urls', peer, '--initial-advertise-peer-urls', peer, '--initial-cluster', `demo=${peer}`);
  let child;
  const start = async () => {
    child = spawn(program, args, { stdio: 'ignore' });
    const failed = once(child, 'error').then(([error]) => Promise.reject(error));
    await Promise.race([failed, until('etcd to answer', () => answers(`${client}/health`))]);
  };
  const stop = async () => {
    if (child?.exitCode !== null || child.signalCode !== null) return;
    child.kill('SIGKILL');
    await once(child, 'exit');
  };
  await start();
  return { url: client.replace('http:', 'etcd:'), place: 'etcd', start, stop };
}

async function answers(url) {
  try {
    return (await fetch(url)).ok;
  } catch {
    return false;
  }
}

async function freePort() {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  server.close();
  await once(server, 'close');
  return port;
}

// ---------------------------------------------------------------------------------------------------------- the words

function title(place) {
  console.log(styleText('bold', `rollcall/coord: limits of three instances, in ${place.toLowerCase()}`));
}

function step(text) {
  console.log(`\n${styleText('cyan', text)}`);
}

function say(who, text) {
  const seconds = ((performance.now() - started) / 1000).toFixed(1).padStart(5);
  console.log(`${styleText('dim', `${seconds} s`)}  ${who.padEnd(8)} ${text}`);
}

async function until(what, look) {
  const end = performance.now() + 30_000;
  while (!(await look())) {
    if (performance.now() > end) throw new Error(`waited 30 s for ${what}`);
    await delay(20);
  }
}

const { values } = parseArgs({ options: { etcd: { type: 'string' } } });
const store = values.etcd ? await etcd(values.etcd) : memory();
try {
  await story(store);
} finally {
  await store.stop();
  rmSync(folder, { recursive: true, force: true });
}
