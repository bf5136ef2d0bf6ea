// The same work over every backend: from `register()` to being seen, from a change to its delivery, and one client that
// watches 1,000 services of 100 instances each.

import { loadavg } from 'node:os';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { Etcd3 } from 'etcd3';
import { connect } from 'rollcall';
import { markdown, plain, writeBetween } from '../etcd/report.mjs';
import { start } from '../support/child.mjs';
import { consulVersion, startConsul } from '../support/consul.mjs';
import { ofProcess } from '../support/cpu.mjs';
import { discoveryVersion, startDiscovery } from '../support/discovery.mjs';
import { etcdVersion, startEtcd } from '../support/etcd.mjs';
import { instanceOf, keyOf, recordOf } from '../support/instances.mjs';
import { kubernetesVersion, startKubernetes } from '../support/kubernetes.mjs';
import { circumstances, describe, listed } from '../support/machine.mjs';
import { nacosVersion, startNacos } from '../support/nacos.mjs';
import { polarisVersion, startPolaris } from '../support/polaris.mjs';
import { sized } from '../support/small.mjs';
import { median, now, quantile } from '../support/stats.mjs';
import { mark, repeated, STEADY, steady } from '../support/steady.mjs';
import { startZookeeper, zookeeperVersion } from '../support/zookeeper.mjs';

const PAGE = fileURLToPath(new URL('../../docs/bench-backends.md', import.meta.url));
const SERVICES = sized(1000, 70); // more than OWN
const INSTANCES = sized(100, 5);
const ROUNDS = sized(150, 10);
/** Of a registry that tells of a change after a second or so. */
const SLOW_ROUNDS = sized(30, 3);
const ROUND_MS = 220;
const NAME = 'visible';
const PREFIX = '/bench-backends';
/** Names that hold a query of their own at Consul; the others share three and wait for their turn. */
const OWN = 64;
/** What Consul is to keep to, while all services are watched: milliseconds, and connections. */
const TARGETS = {
  consul: { deliveredMs: 400, servedMs: 350, connections: 199 },
  consulTls: { deliveredMs: 100, connections: 8 },
};

/** A store in a file takes longer for each record the more there are: 1,000 services would take hours to write. */
const POLARIS_SERVICES = sized(50, 5);

/**
 * A version when it is installed, what starts it; and where it is not as elsewhere, how many rounds of registering there are and
 * how many services are watched.
 */
const SERVERS = {
  etcd: { title: 'etcd', version: etcdVersion, start: startEtcdToWrite },
  consul: { title: 'Consul', version: consulVersion, start: startConsul },
  consulTls: { title: 'Consul with TLS', version: consulVersion, start: () => startConsul({ tls: true }) },
  zookeeper: { title: 'ZooKeeper', version: zookeeperVersion, start: startZookeeper },
  nacos: { title: 'Nacos', version: nacosVersion, start: startNacos, rounds: SLOW_ROUNDS },
  kubernetes: { title: 'Kubernetes', version: kubernetesVersion, start: startKubernetes },
  polaris: {
    title: 'Polaris',
    version: polarisVersion,
    start: startPolaris,
    rounds: SLOW_ROUNDS,
    services: POLARIS_SERVICES,
  },
  discovery: { title: 'discovery', version: discoveryVersion, start: startDiscovery, rounds: SLOW_ROUNDS },
};
/** Over a column. */
const titleOf = ({ title, services }) => (services === undefined ? title : `${title} (${services} services)`);
const TITLES = {
  memory: 'memory',
  ...Object.fromEntries(Object.entries(SERVERS).map(([of, server]) => [of, titleOf(server)])),
};

let began;

export default {
  name: 'backends',
  title: `Every backend, and watching ${SERVICES} services × ${INSTANCES} instances of each`,
  /** Takes minutes: only where it is named. */
  onRequest: true,

  async run({ progress }) {
    began = loadavg()[0];
    const figures = [];
    const add = (of, what, unit, value, more) => figures.push({ what, unit, values: [value], of, ...more });
    const servers = {};
    for (const [of, server] of Object.entries(SERVERS)) {
      if (server.version() === undefined) progress(`${server.title} is not installed, so it is left out: make servers`);
      else servers[of] = await server.start();
    }
    const memory = { options: 'memory://bench-backends' };
    await registering({ memory, ...servers }, add, progress);
    for (const [of, server] of Object.entries(servers)) {
      await watching(of, server, add, (text) => progress(`${TITLES[of]}: ${text}`));
      server.stop();
    }
    return figures;
  },

  /** For the screen: a column for each backend. */
  show: (figures) => plain(table(figures)),

  /** Into the page. */
  write(figures) {
    const versions = Object.values(SERVERS).map(({ title, version }) => [
      title,
      version() ?? 'not installed, left out',
    ]);
    const { etcd: _, etcd3: __, ...machine } = describe();
    const about = circumstances({ ...machine, ...Object.fromEntries(versions) }, began);
    writeBetween(PAGE, 'circumstances', listed(about), 'make bench-backends');
    writeBetween(PAGE, 'figures', markdown(table(figures)), 'make bench-backends');
  },
};

/** From `register()` and `update()` until another client of this process sees it: a round of each backend in turns. */
async function registering(subjects, add, progress) {
  const clients = {};
  for (const [of, { options }] of Object.entries(subjects)) clients[of] = await pair(options);
  const times = Object.fromEntries(Object.keys(clients).map((of) => [of, []]));
  const warm = {};
  let rounds = 0;
  // Consul is asked for one name no more often than a name may ask.
  const paced = async (action) => {
    const start = now();
    await action();
    const took = now() - start;
    await delay(Math.max(0, ROUND_MS - took));
    return { pieces: 1, took };
  };
  for (const [of, client] of Object.entries(clients)) {
    progress(`register: ${TITLES[of]} warms up`);
    warm[of] = await steady(
      `register, ${of}`,
      repeated(() => paced(() => client.round(rounds++))),
    );
  }
  for (let round = 0; round < ROUNDS; round++) {
    await paced(async () => {
      for (const [of, client] of Object.entries(clients))
        if (round < (SERVERS[of]?.rounds ?? ROUNDS)) times[of].push(await client.round(rounds++));
    });
    if (round % (ROUNDS / 10) === 0) progress(`register: ${round}/${ROUNDS}`);
  }
  for (const [of, client] of Object.entries(clients)) {
    await client.close();
    for (const [key, what] of [
      ['resolved', 'register() resolves'],
      ['seen', 'register() until another client sees it'],
      ['updated', 'update() until another client sees it'],
    ]) {
      const values = times[of].map((time) => time[key]);
      add(of, `${what}, p50`, 'ms', quantile(values, 0.5), { steady: warm[of] });
      add(of, `${what}, p99`, 'ms', quantile(values, 0.99), { steady: warm[of] });
    }
  }
}

async function pair(options) {
  const [registering, watching] = [await connect(options), await connect(options)];
  const watcher = watching.watch(NAME);
  await watcher.next();
  const until = async (fits) => {
    for (;;) {
      const { value } = await watcher.next();
      if (fits(value)) return now();
    }
  };
  return {
    async round(n) {
      const instance = instanceOf(NAME, n);
      const start = now();
      const visible = until((list) => list.some(({ id }) => id === instance.id));
      const registration = await registering.register(instance);
      const resolved = now() - start;
      const seen = (await visible) - start;
      const change = now();
      const changed = until((list) => list.some(({ version }) => version === '2.0.0'));
      await registration.update({ version: '2.0.0' });
      const updated = (await changed) - change;
      const gone = until((list) => list.length === 0);
      await registration.deregister();
      await gone;
      return { resolved, seen, updated };
    },
    async close() {
      await registering.close();
      await watching.close();
    },
  };
}

/** One client in a process of its own, which watches one service, and then another one that watches all of them. */
async function watching(of, server, add, progress) {
  const services = SERVERS[of].services ?? SERVICES;
  const names = Array.from({ length: services }, (_, index) => `service-${String(index).padStart(4, '0')}`);
  const filling = now();
  await fill(server, names, progress);
  add(
    of,
    `written: all services × ${INSTANCES} instances, by a writer of the benchmark`,
    's',
    (now() - filling) / 1000,
  );
  let seq = 0;
  // What is measured in silence is taken away: where names are asked in turns, or the server is slow, no silence is like the next.
  const addThread = (what, thread, warm) => {
    if (thread > 0) add(of, `${what}: JavaScript thread per change`, 'µs', thread, warm);
  };

  progress('one service is watched');
  await withClient(server, async (client) => {
    await client.ask('follow', { names: names.slice(0, 1), perName: INSTANCES });
    const count = sized(of in TARGETS ? 100 : 400, 4);
    const { times, thread, warm } = await changes(client, 'one watched', count, server.paceMs, () => names[0]);
    add(of, 'one watched: a change until its delivery, p50', 'ms', quantile(times, 0.5), warm);
    add(of, 'one watched: a change until its delivery, p99', 'ms', quantile(times, 0.99), warm);
    addThread('one watched', thread, warm);
  });

  progress(`${services} services are watched`);
  await withClient(server, async (client, before) => {
    const connections = watchConnections(server);
    // Those that come first hold the queries of their own.
    const first = await client.ask('follow', { names: names.slice(0, OWN), perName: INSTANCES });
    const after = await client.ask('follow', { names: names.slice(OWN), perName: INSTANCES });
    add(of, 'all watched: from watch() to all lists', 'ms', first.tookMs + after.tookMs);
    add(
      of,
      'all watched: resident memory of the client, above the baseline',
      'MB',
      (after.resident - before.resident) / 1e6,
    );
    add(of, 'all watched: JavaScript heap in it', 'MB', (after.heap - before.heap) / 1e6);
    await delay(2000); // at Consul every name that shares a query asks once at the beginning
    const consul = of === 'consul';
    const target = TARGETS[of];
    const pick = consul
      ? (round) => (round % 2 === 0 ? names[(round * 37) % OWN] : names[OWN + ((round * 37) % (SERVICES - OWN))])
      : (round) => names[(round * 37) % services];
    const paceMs = consul ? 1000 : server.paceMs;
    const count = sized(consul ? 80 : target ? 100 : 400, 4);
    const figures = await changes(client, 'all watched', count, paceMs, pick, progress);
    const { times, thread, silence, process, server: served, warm } = figures;
    const first64 = consul ? times.filter((_, index) => index % 2 === 0) : times;
    add(of, 'all watched: a change until its delivery, p50', 'ms', quantile(first64, 0.5), {
      ...warm,
      ...(target && { target: target.deliveredMs }),
    });
    add(of, 'all watched: a change until its delivery, p99', 'ms', quantile(first64, 0.99), warm);
    addThread('all watched', thread, warm);
    add(of, 'all watched: JavaScript thread per second of silence', 'µs', silence);
    add(of, 'all watched: processor time of the client per change', 'ms', process, warm);
    if (!Number.isNaN(served))
      add(of, 'all watched: processor time of the server per change', 'ms', served, { target: target?.servedMs });
    if (consul) {
      const others = times.filter((_, index) => index % 2 === 1);
      add(of, `all watched: … of a name beyond the first ${OWN}, p50`, 'ms', quantile(others, 0.5), {
        target: target.deliveredMs,
      });
      add(of, `all watched: … of a name beyond the first ${OWN}, worst`, 'ms', Math.max(...others));
    }
    const most = connections.end();
    if (most !== undefined)
      add(of, 'all watched: connections at the agent, at most at once', '', most, {
        target: target?.connections,
      });
  });

  /** Changes instances one after the other, each some time after the one before. */
  async function changes(client, what, rounds, paceMs, pick, tell = () => {}) {
    const begun = [];
    // The writer sets the rate: what is looked at is the work of the JavaScript thread.
    const some = Math.max(1, Math.ceil(STEADY.slice / paceMs));
    const ready = await steady(`${of}, ${what}`, async () => {
      const { thread } = await client.ask('cpu');
      await change(some, () => {});
      return some / ((await client.ask('cpu')).thread - thread);
    });
    begun.length = 0;
    const silence = await idle(client);
    const [before, start, serverBefore] = [await client.ask('cpu'), now(), ofProcess(server.pid)];
    await change(rounds, (round) => round % (rounds / 4) === 0 && tell(`${round}/${rounds} changes`));
    const [after, serverAfter] = [await client.ask('cpu'), ofProcess(server.pid)];
    const worked = after.thread - before.thread - silence * (now() - start);
    return {
      times: begun.map(({ at, delivered }) => delivered - at),
      thread: (worked / begun.length) * 1000,
      silence: silence * 1e6,
      process: (after.process - before.process) / begun.length,
      server: (serverAfter - serverBefore) / begun.length,
      warm: { steady: ready },
    };

    async function change(count, told) {
      for (let round = 0; round < count; round++) {
        told(round);
        const name = pick(round);
        const changed = instanceOf(name, 0, ++seq);
        begun.push({ name, seq, at: now() });
        await server.write([changed], true);
        await delay(paceMs);
      }
      const deliveries = [];
      for (const deadline = now() + 20_000; ; await delay(Math.max(100, paceMs))) {
        deliveries.push(...(await client.ask('deliveries')));
        // A list may be of two changes of a name that came at once.
        for (const one of begun)
          one.delivered ??= deliveries.find(({ name, seq }) => name === one.name && seq >= one.seq)?.at;
        if (begun.every(({ delivered }) => delivered !== undefined)) return;
        if (now() > deadline) throw new Error(`a change of ${of} was not delivered within 20 s`);
      }
    }
  }
}

async function withClient({ options, watching = options }, action) {
  const client = start('fanout-client.mjs', { nodeArgs: ['--expose-gc'] });
  try {
    await action(client, await client.ask('open', { way: 'rollcall', options: watching }));
  } finally {
    await client.end();
  }
}

async function fill(server, names, progress) {
  await server.prepare?.(INSTANCES, names);
  const left = [...names];
  let done = 0;
  const worker = async () => {
    for (let name = left.pop(); name !== undefined; name = left.pop()) {
      await server.write(Array.from({ length: INSTANCES }, (_, n) => instanceOf(name, n)));
      if (++done % 250 === 0) progress(`${done}/${names.length} services written`);
    }
  };
  await Promise.all(Array.from({ length: 4 }, worker));
}

/** The share of the time that the JavaScript thread works while nothing changes. */
async function idle(client) {
  const [before, start] = [await client.ask('cpu'), now()];
  await delay(2000);
  const after = await client.ask('cpu');
  return (after.thread - before.thread) / (now() - start);
}

/** Counts them from time to time. */
function watchConnections(server) {
  let most = server.connections?.();
  const timer = setInterval(() => {
    if (most !== undefined) most = Math.max(most, server.connections() ?? 0);
  }, 100);
  return {
    end() {
      clearInterval(timer);
      return most;
    },
  };
}

/** An etcd, and how instances are written to it. */
async function startEtcdToWrite() {
  const etcd = await startEtcd();
  const writer = new Etcd3({ hosts: etcd.host });
  return {
    options: { backend: 'etcd', hosts: etcd.host, prefix: PREFIX },
    pid: etcd.pid,
    stop() {
      writer.close();
      etcd.stop();
    },
    write: (instances) =>
      writer.kv.txn({
        success: instances.map((instance) => ({
          request_put: { key: Buffer.from(keyOf(PREFIX, instance)), value: Buffer.from(recordOf(instance)) },
        })),
      }),
    paceMs: 5,
  };
}

/** A line for each thing that was measured, in the order of the first backend that has it. */
function table(figures) {
  const columns = Object.keys(TITLES).filter((of) => figures.some((figure) => figure.of === of));
  const whats = [];
  for (const { what } of figures) if (!whats.includes(what)) whats.push(what);
  const rank = (what) => ['register', 'update', 'written', 'one', 'all'].findIndex((word) => what.startsWith(word));
  const lines = whats
    .sort((a, b) => rank(a) - rank(b))
    .map((what) => [
      what,
      ...columns.map((of) => {
        const figure = figures.find((one) => one.what === what && one.of === of);
        if (!figure) return '';
        const verdict = figure.met === false ? ` MISSED: at most ${figure.target}` : '';
        const value = `${shown(figure.median ?? median(figure.values))} ${figure.unit}`.trim();
        return `${value}${mark(figure.steady)}${verdict}`;
      }),
    ]);
  return { head: ['', ...columns.map((of) => TITLES[of])], lines };
}

const shown = (value) => (value >= 100 || Number.isInteger(value) ? value.toFixed(0) : value.toPrecision(2));
