// From `register()` to being seen: by the caller, whose call resolves, and by a watcher of another client.

import { Etcd3 } from 'etcd3';
import { connect } from 'rollcall';
import { instanceOf, keyOf, recordOf } from '../support/instances.mjs';
import { sized } from '../support/small.mjs';
import { now, quantile } from '../support/stats.mjs';
import { repeated, steady } from '../support/steady.mjs';

const RUNS = sized(5, 1);
const ROUNDS = sized(60, 4);
const NAME = 'visible';
const PREFIX = '/bench-register';

export default {
  name: 'register',
  title: 'Register to visible, one after the other',
  needsEtcd: true,
  async run({ etcd, progress }) {
    const subjects = {
      memory: await rollcall('memory://bench-register'),
      etcd: await rollcall(`etcd://${etcd.host}?prefix=${PREFIX}`),
      etcd3: await incumbent(etcd.host),
    };
    const resolved = { memory: [], etcd: [], etcd3: [] };
    const seen = { memory: [], etcd: [], etcd3: [] };
    const warm = {};
    let rounds = 0;
    for (const [name, subject] of Object.entries(subjects)) {
      const one = async () => {
        await subject.round(rounds++);
        return 1;
      };
      warm[name] = await steady(`register, ${name}`, repeated(one));
    }
    for (let run = 1; run <= RUNS; run++) {
      for (const [name, subject] of Object.entries(subjects)) {
        const times = [];
        for (let round = 0; round < ROUNDS; round++) times.push(await subject.round(rounds++));
        resolved[name].push(times.map((time) => time.resolved));
        seen[name].push(times.map((time) => time.seen));
      }
      progress(`${run}/${RUNS}`);
    }
    for (const subject of Object.values(subjects)) await subject.close();

    const at = (times, share) => times.map((run) => quantile(run, share));
    return ['p50', 'p99'].flatMap((label) => {
      const share = label === 'p50' ? 0.5 : 0.99;
      return [
        {
          what: `memory: register() resolves, ${label}`,
          unit: 'ms',
          values: at(resolved.memory, share),
          steady: warm.memory,
        },
        {
          what: `memory: another client sees it, ${label}`,
          unit: 'ms',
          values: at(seen.memory, share),
          steady: warm.memory,
        },
        {
          what: `etcd: register() resolves, ${label}`,
          unit: 'ms',
          values: at(resolved.etcd, share),
          steady: warm.etcd,
        },
        {
          what: `  etcd3: grant, put with the lease, ${label}`,
          unit: 'ms',
          values: at(resolved.etcd3, share),
          ratio: { to: 'rollcall', values: at(resolved.etcd, share) },
          steady: warm.etcd3,
        },
        { what: `etcd: another client sees it, ${label}`, unit: 'ms', values: at(seen.etcd, share), steady: warm.etcd },
        {
          what: `  etcd3: another client's watch, ${label}`,
          unit: 'ms',
          values: at(seen.etcd3, share),
          ratio: { to: 'rollcall', values: at(seen.etcd, share) },
          steady: warm.etcd3,
        },
      ];
    });
  },
};

async function rollcall(url) {
  const [registering, watching] = [await connect(url), await connect(url)];
  const watcher = watching.watch(NAME);
  await watcher.next();
  return {
    async round(n) {
      const instance = instanceOf(NAME, n);
      const start = now();
      const visible = until(watcher, (list) => list.some(({ id }) => id === instance.id));
      const registration = await registering.register(instance);
      const resolved = now() - start;
      const seen = (await visible) - start;
      const gone = until(watcher, (list) => list.length === 0);
      await registration.deregister();
      await gone;
      return { resolved, seen };
    },
    async close() {
      await registering.close();
      await watching.close();
    },
  };
}

async function until(watcher, fits) {
  for (;;) {
    const { value } = await watcher.next();
    if (fits(value)) return now();
  }
}

async function incumbent(host) {
  const prefix = `${PREFIX}-etcd3`;
  const [registering, watching] = [new Etcd3({ hosts: host }), new Etcd3({ hosts: host })];
  const watcher = await watching.watch().prefix(`${prefix}/${NAME}/`).create();
  const event = (kind, key) =>
    new Promise((resolve) => {
      const listener = (kv) => {
        if (kv.key.toString() !== key) return;
        watcher.off(kind, listener);
        resolve(now());
      };
      watcher.on(kind, listener);
    });
  return {
    async round(n) {
      const instance = instanceOf(NAME, n);
      const key = keyOf(prefix, instance);
      const start = now();
      const visible = event('put', key);
      const lease = registering.lease(15);
      await lease.put(key).value(recordOf(instance));
      const resolved = now() - start;
      const seen = (await visible) - start;
      const gone = event('delete', key);
      await lease.revoke();
      await gone;
      return { resolved, seen };
    },
    async close() {
      await watcher.cancel();
      registering.close();
      watching.close();
    },
  };
}
