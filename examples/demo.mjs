// The demo: three instances of a service register, one dies without a word, one changes, one leaves; a watcher shows
// each change as it happens.
//
//   node examples/demo.mjs [--hold SECONDS] [--create]
//
// ROLLCALL_REGISTRY names the registry (etcd://127.0.0.1:2379); without it all happens in the memory of this process.
// On a real registry every instance is a process of its own, and two demos side by side see each other.
// On Kubernetes an instance is a pod: the demo only watches what is there, for 15 s or as `--hold` says; with `--create` it makes
// pods in a namespace of its own, and takes them away at the end.

import { fork } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { parseArgs, styleText } from 'node:util';
import { connect, MemoryServer, RollcallError } from 'rollcall';
import { openInstance } from './demo-instance.mjs';
import { createObjects } from './demo-kubernetes.mjs';

const SERVICE = 'rollcall-demo';
const PAUSE_MS = 1000;
const url = demoUrl(process.env.ROLLCALL_REGISTRY || 'memory://demo');
const memory = url.startsWith('memory:');
const kubernetes = url.startsWith('kubernetes:');
const discovery = /^(bilibili|discovery):/.test(url);
/**
 * The longest that a change may take to show. Long, so that the registry may be restarted under the demo. What dies is
 * evicted from discovery after up to 150 s, whatever the TTL.
 */
const PATIENCE_MS = discovery ? 200_000 : 60_000;
const started = performance.now();
const interrupted = new AbortController();

/** Of this demo: what tells its instances from those of another one. */
const tag = randomBytes(2).toString('hex');
const [alpha, beta, gamma] = ['alpha', 'beta', 'gamma'].map((name, index) => ({
  name: SERVICE,
  id: `${name}-${tag}`,
  version: '1.4.0',
  endpoints: [`grpc://10.0.0.${index + 1}:9000`],
  metadata: { zone: 'abc'[index] },
}));

/** What runs, by id. */
const running = new Map();
/** What was made on Kubernetes. */
let objects;

// ---------------------------------------------------------------------------------------------------------- the story

async function story(holdMs) {
  title();
  const registry = await connect(objects?.url ?? url);
  const watch = new Watch(registry.watch(SERVICE));
  try {
    await watch.shows(() => true, 'the first list');

    step('Three instances register.');
    for (const instance of [alpha, beta, gamma]) {
      await start(instance);
      await watch.shows((list) => list.has(instance.id), `${instance.id} to appear`);
      await pause();
    }

    if (holdMs > 0) {
      const hint = memory ? '' : ' Kill the registry under them and start it again, if you like.';
      step(`All stay up for ${holdMs / 1000} s.${hint} Ctrl-C ends.`);
      await pause(holdMs);
    }

    const end = kubernetes
      ? 'it goes with its pod, which is deleted'
      : discovery
        ? 'a node evicts it 90 to 150 s after its last renewal, whatever the TTL'
        : 'its TTL must run out';
    step(`gamma dies without a word: nobody deregisters it, ${end}.`);
    const died = performance.now();
    await kill(gamma.id);
    await watch.shows((list) => !list.has(gamma.id), `${gamma.id} to go`);
    const noticed = (performance.now() - died) / 1000;
    await pause();

    step('beta moves to another zone: it updates its metadata.');
    await attempt(beta.id, 'update', { metadata: { zone: 'z' } });
    await watch.shows((list) => list.get(beta.id)?.metadata.zone === 'z', `${beta.id} to change`);
    await pause();

    step('alpha deregisters: it is gone at once.');
    await attempt(alpha.id, 'deregister');
    await watch.shows((list) => !list.has(alpha.id), `${alpha.id} to go`);
    await pause();

    step('beta closes its client, which deregisters what is left.');
    await stop(beta.id);
    await watch.shows((list) => !list.has(beta.id), `${beta.id} to go`);

    summary(noticed, watch.others.size);
  } finally {
    await Promise.all([...running.keys()].map((id) => stop(id).catch(() => {})));
    watch.stop();
    await registry.close({ timeoutMs: 2000 }).catch(() => {});
  }
}

/** What is there already: its names, and how many instances each has. */
async function look(holdMs) {
  title();
  const registry = await connect(url);
  const lists = new Map();
  const sizes = () =>
    [...lists].map(([name, { current }]) => `${name} ${current?.length ?? '…'}`).join(', ') || 'no service at all';
  const follow = async (name) => {
    const watcher = registry.watch(name);
    lists.set(name, watcher);
    for await (const _ of watcher) say('watch', sizes());
  };
  try {
    step(`Names and instances are watched for ${holdMs / 1000} s. Ctrl-C ends; --create makes some.`);
    const names = registry.watchServices();
    const following = (async () => {
      for await (const list of names) {
        const there = new Set(list.map(({ name }) => name));
        for (const [name, watcher] of lists) {
          if (there.has(name)) continue;
          watcher.stop();
          lists.delete(name);
        }
        say('names', [...there].join(', ') || 'none');
        for (const name of there) if (!lists.has(name)) follow(name).catch((error) => say(name, error.message));
      }
    })();
    await Promise.race([pause(holdMs), following]);
    say('done', sizes());
    say('next', 'the same with --create: a namespace of its own, with three pods');
  } finally {
    await registry.close({ timeoutMs: 2000 }).catch(() => {});
  }
}

// ------------------------------------------------------------------------------------------------------ the instances

async function start(instance) {
  const { id } = instance;
  const report = (event, reason) => say(id, reason ? `${event}: ${reason}` : event);
  const opened = memory ? await openInstance(url, instance, report) : await spawnInstance(instance, report);
  running.set(id, opened);
  say(id, opened.pid ? `registered by process ${opened.pid}` : 'registered');
}

/** While the registry is away a call fails, but what was asked for is still wanted, and done when it is back. */
async function attempt(id, action, argument) {
  try {
    await running.get(id)[action](argument);
  } catch (error) {
    if (!['ERR_UNAVAILABLE', 'ERR_TIMEOUT'].includes(error.code)) throw error;
    say(id, `not done yet: ${error.message}`);
  }
}

async function kill(id) {
  const instance = running.get(id);
  running.delete(id);
  if (memory) {
    const namespace = decodeURIComponent(/^memory:\/\/([^/?#]*)/.exec(url)[1]) || 'default';
    if (!MemoryServer.of(namespace).crash(SERVICE, id)) throw new GaveUp(`${id} is not there to die`);
    say(id, 'crashed');
    await instance.close();
  } else {
    instance.kill();
    say(id, `process ${instance.pid} ended by SIGKILL`);
    if (!objects) return;
    await objects.endPod(id);
    say(id, 'its pod is deleted');
  }
}

async function stop(id) {
  const instance = running.get(id);
  running.delete(id);
  await instance?.close();
}

/** The same as `openInstance()`, in a process of its own. */
async function spawnInstance(wanted, report) {
  const child = fork(fileURLToPath(new URL('demo-instance.mjs', import.meta.url)), {
    env: { ...process.env, ROLLCALL_REGISTRY: objects?.urlOf(wanted.id) ?? url },
  });
  const pending = new Map();
  let calls = 0;
  child.on('message', ({ id, error, event, reason }) => {
    if (event) return report(event, reason);
    const { resolve, reject } = pending.get(id);
    pending.delete(id);
    if (error) reject(Object.assign(new Error(error.message), error));
    else resolve();
  });
  child.on('exit', () => {
    for (const { reject } of pending.values()) reject(new Error(`process ${child.pid} has ended`));
  });
  const ask = (action, argument) =>
    new Promise((resolve, reject) => {
      const id = ++calls;
      pending.set(id, { resolve, reject });
      child.send({ id, action, argument }, (error) => error && reject(error));
    });

  running.set(wanted.id, { close: () => ask('close') });
  await ask('register', wanted);
  return {
    pid: child.pid,
    update: (patch) => ask('update', patch),
    deregister: () => ask('deregister'),
    close: () => ask('close'),
    kill: () => child.kill('SIGKILL'),
  };
}

// ---------------------------------------------------------------------------------------------------------- the watch

/** Follows the service, and shows every list. */
class Watch {
  /** Ids of other demos. */
  others = new Set();
  #watcher;
  #list;
  #failure;

  constructor(watcher) {
    this.#watcher = watcher
      .on('stale', () => say('watch', 'stale: the registry is out of reach, its last list stays'))
      .on('fresh', () => say('watch', 'fresh: the list is again what the registry says'));
    this.#follow().catch((error) => {
      this.#failure = error;
    });
  }

  /** Waits until the latest list is as expected. */
  async shows(expected, what) {
    const deadline = performance.now() + PATIENCE_MS;
    while (!this.#list || !expected(this.#list)) {
      if (this.#failure) throw this.#failure;
      if (performance.now() > deadline) throw new GaveUp(`waited ${PATIENCE_MS / 1000} s in vain for ${what}`);
      await pause(20);
    }
  }

  stop() {
    this.#watcher.stop();
  }

  async #follow() {
    for await (const instances of this.#watcher) {
      const before = this.#list ?? new Map();
      this.#list = new Map(instances.map((instance) => [instance.id, instance]));
      for (const { id } of instances) if (!id.endsWith(tag)) this.others.add(id);
      const rows = this.#rows(before);
      const news = rows.filter(({ state }) => state !== 'up').map(({ instance, state }) => `${instance.id} ${state}`);
      say('watch', news.join(', ') || `no instance of ${SERVICE}`);
      screen.table(rows);
    }
  }

  #rows(before) {
    const rows = [...this.#list.values()].map((instance) => {
      const known = before.get(instance.id);
      const state = !known ? 'new' : known === instance ? 'up' : 'changed'; // an unchanged instance is the same object
      return { instance, state };
    });
    for (const instance of before.values()) if (!this.#list.has(instance.id)) rows.push({ instance, state: 'gone' });
    return rows
      .sort((a, b) => (a.instance.id < b.instance.id ? -1 : 1))
      .map(({ instance, state }) => ({ instance, state, foreign: !instance.id.endsWith(tag) }));
  }
}

// --------------------------------------------------------------------------------------------------------- the screen

const COLUMNS = [
  ['NAME', ({ name }) => name],
  ['ID', ({ id }) => id],
  ['VERSION', ({ version }) => version],
  ['ENDPOINTS', ({ endpoints }) => endpoints.join(' ')],
  ['ZONE', ({ metadata }) => metadata.zone ?? ''],
];
const COLOURS = { new: 'green', changed: 'yellow', gone: 'red' };

/** Lines, and a table below them: redrawn in its place on a terminal, else written again after each change. */
class Screen {
  #live = Boolean(process.stdout.isTTY);
  #table = [];

  line(text) {
    this.#redraw(() => process.stdout.write(`${text}\n`));
  }

  table(rows) {
    const lines = tableLines(rows);
    if (this.#live) this.#redraw(() => (this.#table = ['', ...lines]));
    else if (lines.length > 0) this.line(`\n${lines.join('\n')}\n`);
  }

  /** The table stays where it is; what follows comes below it. */
  release() {
    this.#table = [];
  }

  #redraw(action) {
    if (this.#table.length > 0) process.stdout.write(`\x1b[${this.#table.length}A\x1b[J`);
    action();
    // Without line wrap, so that every line of the table is one line of the terminal.
    if (this.#table.length > 0) process.stdout.write(`\x1b[?7l${this.#table.join('\n')}\n\x1b[?7h`);
  }
}

function tableLines(rows) {
  if (rows.length === 0) return [];
  const cells = [COLUMNS.map(([title]) => title), ...rows.map(({ instance }) => COLUMNS.map(([, of]) => of(instance)))];
  const widths = COLUMNS.map((_, column) => Math.max(...cells.map((row) => row[column].length)));
  const [head, ...lines] = cells.map((row) => row.map((cell, column) => cell.padEnd(widths[column])).join('  '));
  return [
    dim(`          ${head}  STATE`),
    ...lines.map((line, index) => {
      const { state, foreign } = rows[index];
      const shown = foreign ? (state === 'up' ? 'foreign' : `foreign, ${state}`) : state;
      return `          ${colour(COLOURS[state] ?? (foreign ? 'cyan' : 'reset'), `${line}  ${shown}`)}`;
    }),
  ];
}

function title() {
  const where = memory ? 'memory, in this process' : url.replace(/^(\w+:\/\/)(?:.*@)?([^/?#]*).*$/, '$1$2');
  screen.line(
    `${colour('bold', 'rollcall demo')}   registry: ${where}   service: ${SERVICE}   TTL: ${kubernetes ? 'that of the pod' : `${ttlMs() / 1000} s`}`,
  );
  screen.line(
    dim('state: new, changed, gone since the table before; up: as before; foreign: of another demo beside this'),
  );
  screen.line('');
}

function summary(noticed, others) {
  screen.release();
  const after = kubernetes
    ? 'with the end of its pod'
    : discovery
      ? 'by the clock of the node'
      : `with a TTL of ${ttlMs() / 1000} s`;
  say('done', `all changes seen; the silent death after ${noticed.toFixed(1)} s, ${after}`);
  if (others > 0) say('', `and ${others} instance${others === 1 ? '' : 's'} of another demo`);
  const next = 'ROLLCALL_REGISTRY=etcd://127.0.0.1:2379 make demo';
  if (kubernetes) say('next', 'the same without --create: what the cluster has is watched');
  else say('next', memory ? `${next}   on a real etcd` : `${next}   twice at once: they see each other`);
}

let steps = 0;
function step(text) {
  screen.line(`${clock()}  ${colour('bold', `${++steps}. ${text}`)}`);
}

function say(who, text) {
  screen.line(`${clock()}  ${who ? `${who.padEnd(11)}` : ''.padEnd(11)} ${text}`);
}

function clock() {
  return dim(`${((performance.now() - started) / 1000).toFixed(2).padStart(6)} s`);
}

function colour(style, text) {
  return process.stdout.isTTY && !process.env.NO_COLOR ? styleText(style, text) : text;
}

function dim(text) {
  return colour('dim', text);
}

// ------------------------------------------------------------------------------------------------------- odds and ends

class GaveUp extends Error {}

/** A pause that Ctrl-C ends. */
function pause(ms = PAUSE_MS) {
  return delay(ms, undefined, { signal: interrupted.signal });
}

/** The URL with what suits a demo: a short TTL, a short wait for the first contact, and a screen of our own. */
function demoUrl(given) {
  const defaults = { ttlMs: 3000, connectTimeoutMs: 5000, logger: false };
  // The endpoints are made up: an agent of Consul would find nobody there.
  if (/^consuls?:/.test(given)) defaults.healthCheck = false;
  return Object.entries(defaults).reduce((all, [name, value]) => {
    if (new RegExp(`[?&]${name}=`).test(all)) return all;
    return `${all}${all.includes('?') ? '&' : '?'}${name}=${value}`;
  }, given);
}

function ttlMs() {
  return Number(/[?&]ttlMs=(\d+)/.exec(url)?.[1]);
}

function arguments_() {
  const options = { hold: { type: 'string' }, create: { type: 'boolean', default: false } };
  const { values } = parseArgs({ options });
  const isWatching = kubernetes && !values.create;
  const seconds = Number(values.hold ?? (isWatching ? 15 : 0));
  if (!(seconds >= 0)) throw new GaveUp('--hold takes a number of seconds');
  if (values.create && !kubernetes) throw new GaveUp('--create is for kubernetes://');
  return { isWatching, holdMs: seconds * 1000 };
}

for (const signal of ['SIGINT', 'SIGTERM']) {
  process.once(signal, () => {
    screen.release();
    say('', 'interrupted: everything is deregistered');
    interrupted.abort();
    process.once(signal, () => process.exit(130)); // the second time nothing is waited for
  });
}

const screen = new Screen();
try {
  const { isWatching, holdMs } = arguments_();
  if (isWatching) {
    await look(holdMs);
  } else {
    const pods = [alpha, beta, gamma].map(({ id }) => id);
    if (kubernetes) objects = await createObjects(url, tag, pods);
    await story(holdMs).finally(() => objects?.close());
  }
} catch (error) {
  if (interrupted.signal.aborted) {
    process.exitCode = 130;
  } else if (error instanceof RollcallError || error instanceof GaveUp || error.code?.startsWith('ERR_')) {
    console.error(`demo: ${error.message}`);
    process.exitCode = 1;
  } else {
    throw error;
  }
}
