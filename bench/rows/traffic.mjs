// Out of traffic and in again, over every backend: what a program pays that does so often, beside the only other way to it,
// deregistering and registering anew.

import { connect } from 'rollcall';
import { consulVersion, startConsul } from '../support/consul.mjs';
import { etcdVersion, startEtcd } from '../support/etcd.mjs';
import { instanceOf } from '../support/instances.mjs';
import { sized } from '../support/small.mjs';
import { now } from '../support/stats.mjs';
import { repeated, steady } from '../support/steady.mjs';
import { startZookeeper, zookeeperVersion } from '../support/zookeeper.mjs';

const RUNS = sized(5, 1);
/** Of all runs together: 1,000. */
const ROUNDS = sized(200, 5);
const PREFIX = '/bench-traffic';

const SERVERS = {
  etcd: { title: 'etcd', version: etcdVersion, start: startEtcdWithOptions },
  consul: { title: 'Consul', version: consulVersion, start: startConsul },
  zookeeper: { title: 'ZooKeeper', version: zookeeperVersion, start: startZookeeper },
};

export default {
  name: 'traffic',
  title: `Out of traffic and in again, ${RUNS * ROUNDS} rounds of each backend`,
  async run({ progress }) {
    const subjects = { memory: await subjectOf('memory', { options: 'memory://bench-traffic' }) };
    for (const [of, { title, version, start }] of Object.entries(SERVERS)) {
      if (version() === undefined) progress(`${title} is not installed, so it is left out: make servers`);
      else subjects[of] = await subjectOf(title, await start());
    }
    for (const [of, subject] of Object.entries(subjects)) {
      const both = async () => {
        await subject.traffic();
        await subject.anew();
        return 2;
      };
      subject.warm = await steady(`traffic, ${of}`, repeated(both));
    }
    for (let run = 1; run <= RUNS; run++) {
      for (const subject of Object.values(subjects)) {
        subject.times.traffic.push(await perRound(subject.traffic));
        subject.times.anew.push(await perRound(subject.anew));
      }
      progress(`${run}/${RUNS}`);
    }
    for (const subject of Object.values(subjects)) await subject.close();

    return Object.values(subjects).flatMap(({ title, times, warm }) => [
      {
        what: `${title}: withdraw(), restore()`,
        unit: 'ms',
        values: times.traffic,
        ratio: { to: 'deregister(), register()', values: times.anew },
        steady: warm,
      },
      { what: `${title}: deregister(), register()`, unit: 'ms', values: times.anew, steady: warm },
    ]);
  },
};

async function perRound(action) {
  const start = now();
  for (let round = 0; round < ROUNDS; round++) await action();
  return (now() - start) / ROUNDS;
}

async function subjectOf(title, server) {
  const registry = await connect(server.options);
  const registration = await registry.register(instanceOf('traffic', 0));
  let other = await registry.register(instanceOf('traffic', 1));
  return {
    title,
    times: { traffic: [], anew: [] },
    async traffic() {
      await registration.withdraw();
      await registration.restore();
    },
    async anew() {
      await other.deregister();
      other = await registry.register(instanceOf('traffic', 1));
    },
    async close() {
      await registry.close();
      server.stop?.();
    },
  };
}

async function startEtcdWithOptions() {
  const etcd = await startEtcd();
  return { ...etcd, options: { backend: 'etcd', hosts: etcd.host, prefix: PREFIX } };
}
