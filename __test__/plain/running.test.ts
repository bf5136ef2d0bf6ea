// What docs/running.md says of programs that are held by a debugger, frozen, and told their address.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { connect, type Registry } from 'rollcall';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { type EtcdCluster, startEtcd } from '../support/etcd.js';
import { runProgram, temporaryFolder, uniqueName, waitFor } from '../support/process.js';

const fixture = (name: string) => new URL(`fixtures/${name}.mjs`, import.meta.url).pathname;
const files = temporaryFolder('rollcall-running-');
let etcd: EtcdCluster;
let registry: Registry;
beforeAll(async () => {
  etcd = await startEtcd();
  registry = await connect(etcd.url);
});
afterAll(async () => {
  await registry?.close();
  await etcd?.close();
  files.remove();
});
const start = (name: string, SERVICE: string, query: string, env: NodeJS.ProcessEnv = {}) =>
  runProgram(process.execPath, [fixture(name)], {
    NODE_OPTIONS: '',
    REGISTRY: `${etcd.url}?${query}`,
    SERVICE,
    ...env,
  });
const ids = async (service: string) => (await registry.getService(service, { consistent: true })).map(({ id }) => id);

it('an instance that is held by a debugger leaves traffic after stallTimeoutMs, and comes back with the program', async () => {
  const service = uniqueName('held');
  const [HOLD, GO] = [join(files.path, 'hold'), join(files.path, 'go')];
  const program = start('held', service, 'stallTimeoutMs=1000', { HOLD, GO });
  const { registered } = (await program.line((line) => 'registered' in line)) as { registered: { id: string } };
  expect(await ids(service)).toEqual([registered.id]);
  writeFileSync(HOLD, '');
  await waitFor(async () => (await ids(service)).length === 0, { timeoutMs: 20_000, what: 'it to leave' });
  writeFileSync(GO, '');
  await program.line(({ event }) => event === 'in', { what: 'the event in' });
  expect(await ids(service)).toEqual([registered.id]);
  // The program hears of it when it goes on.
  const told = program.seen.flatMap(({ event, reason }) => (event ? [`${event} ${reason ?? ''}`] : []));
  expect(told).toEqual(['out stalled', expect.stringMatching(/^lost stalled: /), 'restored ', 'in ']);
  program.kill('SIGKILL');
  await program.exit;
});

it('a lazy client that was frozen longer than a TTL tells at its next call what is there now', async () => {
  const service = uniqueName('frozen');
  const before = await registry.register({ name: service, id: 'before' });
  const program = start('function', service, 'lazy=true&ttlMs=3000');
  await program.line(({ ready }) => Boolean(ready));
  const ask = async (call: number) => {
    program.send({ call });
    return program.line((line) => line.call === call);
  };
  await waitFor(async () => (await ask(0)).now);
  let call = 1;
  await waitFor(async () => String((await ask(call++)).watched) === 'before');

  program.kill('SIGSTOP');
  await before.deregister();
  await registry.register({ name: service, id: 'after' });
  // One TTL is over when a record of that TTL, whose process died, is gone.
  await registerAndDie(service);
  await waitFor(async () => !(await ids(service)).includes('dead'), { timeoutMs: 30_000, what: 'a TTL to pass' });
  program.kill('SIGCONT');

  expect((await ask(call++)).now).toEqual(['after']);
  await waitFor(async () => String((await ask(call++)).watched) === 'after');
  program.child.stdin?.end();
  expect(await program.exit).toMatchObject({ code: 0, stderr: '' });
});

/** A process that registers and dies without a word. */
async function registerAndDie(SERVICE: string): Promise<void> {
  const code = `
    const { connect } = await import('rollcall');
    const registry = await connect(process.env.REGISTRY);
    await registry.register({ name: process.env.SERVICE, id: 'dead' });
    process.kill(process.pid, 'SIGKILL');`;
  const REGISTRY = `${etcd.url}?ttlMs=3000`;
  const args = ['--input-type=module', '-e', code];
  expect(await runProgram(process.execPath, args, { NODE_OPTIONS: '', REGISTRY, SERVICE }).exit).toMatchObject({
    signal: 'SIGKILL',
  });
}

it('the address of a server on all addresses is the one of the environment', async () => {
  const service = uniqueName('address');
  const program = start('held', service, '', { ROLLCALL_ADVERTISE_HOST: 'orders' });
  const { registered } = (await program.line((line) => 'registered' in line)) as { registered: object };
  expect(registered).toMatchObject({ endpoints: ['http://orders:80'] });
  program.kill('SIGKILL');
  await program.exit;
});
