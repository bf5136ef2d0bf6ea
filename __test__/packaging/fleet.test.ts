/**
 * Two versions in one fleet, each from its tarball: what one writes, the other reads, counts as whose it is, and leaves alone.
 * `BEFORE=rollcall-0.1.0.tgz` names the tarball of the last tag; as long as nothing is tagged both are today's.
 */

import { cpSync, existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { connect, type ServiceInstance } from 'rollcall';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { startConsul } from '../support/consul.js';
import { startEtcd } from '../support/etcd.js';
import { runProgram, type Script, temporaryFolder, uniqueName, waitFor } from '../support/process.js';
import { startZookeeper } from '../support/zookeeper.js';
import { packInto, tool } from './tools.js';

type Version = 'before' | 'today';
interface Line extends Record<string, unknown> {
  list?: ServiceInstance[];
}

const member = fileURLToPath(new URL('fixtures/fleet.mjs', import.meta.url));
const folder = temporaryFolder('rollcall-fleet-');
const programs: Script<Line>[] = [];
const ttl = 'ttlMs=3000';

beforeAll(async () => {
  const today = await packInto(folder.path);
  const { BEFORE } = process.env;
  if (BEFORE && !existsSync(BEFORE)) throw new Error(`BEFORE: there is no tarball ${resolve(BEFORE)}`);
  for (const [version, tarball] of [
    ['today', today],
    ['before', BEFORE ? resolve(BEFORE) : today],
  ] as const) {
    const place = join(folder.path, version);
    mkdirSync(place);
    writeFileSync(join(place, 'package.json'), '{ "name": "fleet", "private": true }\n');
    await tool('npm', ['install', '--offline', '--no-audit', '--no-fund', tarball], place);
    cpSync(member, join(place, 'fleet.mjs'));
  }
}, 300_000);
afterEach(async () => {
  for (const program of programs) program.kill('SIGKILL');
  await Promise.all(programs.splice(0).map(({ exit }) => exit));
});
afterAll(folder.remove);

/** A member of the fleet: `does()` resolves when it is done, `sees()` when its watch has exactly these. */
function start(version: Version, url: string, name: string, id: string) {
  const program = runProgram<Line>(process.execPath, [join(folder.path, version, 'fleet.mjs'), url, name, id], {
    NODE_OPTIONS: '',
  });
  programs.push(program);
  let steps = 0;
  return {
    program,
    does: async (action: string) => {
      const step = ++steps;
      program.send({ action, step });
      await program.line((line) => line.step === step, { what: `${action} of ${version}` });
    },
    sees: (wanted: Record<string, object>) =>
      waitFor(
        () => {
          const list = program.seen.flatMap(({ list }) => (list ? [list] : [])).at(-1);
          const have = Object.fromEntries((list ?? []).map((instance) => [instance.id, instance.metadata]));
          return JSON.stringify(have) === JSON.stringify(wanted) ? list : undefined;
        },
        { timeoutMs: 15_000, what: `${version} to see ${JSON.stringify(wanted)}: ${program.stderr}` },
      ),
  };
}

describe.each([
  ['etcd', startEtcd, (hosts: readonly string[]) => `etcd://${hosts.join(',')}?${ttl}`],
  ['Consul', startConsul, (hosts: readonly string[]) => `consul://${hosts.join(',')}?${ttl}&healthCheck=false`],
  ['ZooKeeper', startZookeeper, (hosts: readonly string[]) => `zookeeper://${hosts.join(',')}?${ttl}`],
] as const)('%s', (_, startServer, urlOf) => {
  it('two versions see, update, withdraw and replace one another', { timeout: 180_000 }, async () => {
    const server = await startServer();
    try {
      const url = urlOf(server.hosts);
      const name = uniqueName('orders');
      const old = start('before', url, name, 'a');
      const young = start('today', url, name, 'b');
      const both = async (wanted: Record<string, object>) => {
        const lists = await Promise.all([old.sees(wanted), young.sees(wanted)]);
        // One and the same, whoever reads: `since` is the registry's own word and not of every version.
        const [first, second] = lists.map((list) => list?.map(({ since: __, ...rest }) => rest));
        expect(first).toEqual(second);
      };
      const by = (id: string, more: object = {}) => ({ [id]: { by: id, ...more } });
      await old.does('register');
      await both(by('a'));
      await young.does('register');
      await both({ ...by('a'), ...by('b') });
      await old.does('update');
      await both({ ...by('a', { more: 'yes' }), ...by('b') });
      await young.does('update');
      await both({ ...by('a', { more: 'yes' }), ...by('b', { more: 'yes' }) });
      await old.does('withdraw');
      await both(by('b', { more: 'yes' }));
      await old.does('restore');
      await young.does('withdraw');
      await both(by('a', { more: 'yes' }));
      await young.does('restore');

      // The newest of an id wins, whichever version it is of.
      const heir = start('today', url, name, 'a');
      await heir.does('register');
      await old.program.line(({ replaced }) => replaced === 'a', { what: 'replaced' });
      const elder = start('before', url, name, 'b');
      await elder.does('register');
      await young.program.line(({ replaced }) => replaced === 'b', { what: 'replaced' });
      await both({ ...by('a'), ...by('b') });
      await heir.does('close');
      await both(by('b'));
      await elder.does('close');
      await both({});
      expect(programs.flatMap(({ seen }) => seen.filter((line) => 'bad' in line))).toEqual([]);
    } finally {
      await server.close();
    }
  });
});

it('an owner in Consul whose form is newer is left alone, and said to be newer', async () => {
  const consul = await startConsul();
  const told: string[] = [];
  const logger = { debug() {}, info() {}, warn: (text: string) => void told.push(text), error() {} };
  const registry = await connect({ backend: 'consul', hosts: consul.hosts, ttlMs: 3000, healthCheck: false, logger });
  try {
    const registration = await registry.register({ name: 'orders', id: 'a', version: '1' });
    const replaced = new Promise<void>((resolve) => void registration.on('replaced', () => resolve()));
    const notes = 'rollcall2:of a form that is not known yet';
    const body = {
      ...{ ID: 'a', Name: 'orders', Tags: ['version=2'] },
      Check: { CheckID: 'service:a', TTL: '30s', Status: 'passing', Notes: notes },
    };
    const put = await fetch(`http://${consul.hosts[0]}/v1/agent/service/register`, {
      method: 'PUT',
      body: JSON.stringify(body),
    });
    expect(put.status).toBe(200);
    await replaced;
    expect(registration.state).toBe('replaced');
    await registration.deregister();
    expect(await registry.getService('orders', { consistent: true })).toMatchObject([{ id: 'a', version: '2' }]);
    const checks = (await (await fetch(`http://${consul.hosts[0]}/v1/agent/checks`)).json()) as Record<
      string,
      { Notes: string }
    >;
    expect(checks['service:a']?.Notes).toBe(notes);
    expect(told).toEqual([expect.stringContaining('was replaced by a newer registration of its id')]);
  } finally {
    await registry.close();
    await consul.close();
  }
});
