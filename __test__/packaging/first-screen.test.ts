/** Every block of the README's first screen is run, as somebody runs it who has nothing but the README and the tarball. */

import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { connect, type Registry } from 'rollcall';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type EtcdCluster, startEtcd } from '../support/etcd.js';
import { freePorts } from '../support/ports.js';
import { runProgram, type Script, temporaryFolder, waitFor } from '../support/process.js';
import { packInto, tool } from './tools.js';

const root = fileURLToPath(new URL('../..', import.meta.url));
/** Stays from one run to the next, but for rollcall itself. */
const folder = join(root, 'build', 'test-projects', 'first-screen');
const [screen = ''] = readFileSync(join(root, 'README.md'), 'utf8').split(/^## /m);
const blocks = [...screen.matchAll(/^```(\w*)\n(.*?)^```$/gms)].map(([, language, text = '']) => ({ language, text }));
const [pack, install, registryOf, nest, config, runNest, express, runExpress] = blocks.map(({ text }) => text);

let etcd: EtcdCluster;
let registry: Registry;
let ports: Map<string, number>;
const running = new Map<string, Script>();

const bash = (script: string) => {
  const PATH = `${dirname(process.execPath)}:${process.env.PATH}`;
  return tool('env', [`PATH=${PATH}`, 'npm_config_prefer_offline=true', 'bash', '-ec', script], folder);
};
/** With ports that are free in the place of those that the README names. */
const ported = (text = '') => text.replace(/\b300[123]\b/g, (port) => String(ports.get(port)));
const lines = (block = '') => block.trim().split('\n');
const installs = (block?: string) => lines(block).filter((line) => line.startsWith('npm install '));

beforeAll(async () => {
  const free = await freePorts(3);
  ports = new Map(['3001', '3002', '3003'].map((port, i) => [port, free[i] as number]));
  etcd = await startEtcd();
  registry = await connect(etcd.url);
  const commands = [...installs(runNest), ...installs(runExpress)].join('\n');
  const stamp = join(folder, 'installed');
  if (!existsSync(stamp) || readFileSync(stamp, 'utf8') !== commands) {
    rmSync(folder, { recursive: true, force: true });
    mkdirSync(folder, { recursive: true });
    await bash(`npm init -y\n${commands}`);
    writeFileSync(stamp, commands);
  }
  const packed = temporaryFolder('rollcall-packed-');
  rmSync(join(folder, 'node_modules', 'rollcall'), { recursive: true, force: true });
  await bash(`npm install --no-save --offline ${await packInto(packed.path)}`);
  packed.remove();
}, 300_000);
afterAll(async () => {
  for (const program of running.values()) program.kill('SIGTERM');
  await Promise.all([...running.values()].map(({ exit }) => exit));
  await registry?.close();
  await etcd?.close();
});

/** Runs what follows the installing: starts what ends in `&`, asks what begins with `curl`, runs the rest. */
async function follow(block: string | undefined): Promise<void> {
  for (const line of lines(block)) {
    const here = ported(line);
    const [, program] = /^(node .+) &$/.exec(here) ?? [];
    const [, post, url, answer] = /^curl (-X POST )?(localhost:\S+) # (.+)$/.exec(here) ?? [];
    if (program) await start(program);
    else if (url) {
      const ask = async () => (await fetch(`http://${url}`, { method: post ? 'POST' : 'GET' })).text();
      // What was told to the registry is with the others in a moment.
      let told: string | undefined;
      const asked = async () => {
        told = await ask();
        return told === answer;
      };
      await waitFor(asked, { what: line }).catch(() => {});
      expect(told, line).toBe(answer);
    } else if (!line.startsWith('npm install ')) await bash(here);
  }
}

async function start(command: string): Promise<void> {
  const name = /^node main\.js (\w+)/.exec(command)?.[1] ?? 'shop';
  const script = `cd ${folder} && exec ${process.execPath} ${command.replace(/^node /, '')}`;
  const program = runProgram('bash', ['-c', script], { ROLLCALL_REGISTRY: etcd.url, NODE_OPTIONS: '' });
  running.set(name, program);
  void program.exit.then(() => running.delete(name));
  await waitFor(async () => (await registry.getService(name)).length === 1 || !running.has(name), {
    timeoutMs: 20_000,
    what: `${command}: ${program.stderr}`,
  });
  expect(running.has(name), `${command}: ${(await Promise.race([program.exit, undefined]))?.stderr}`).toBe(true);
}

describe('the first screen of the README', () => {
  it('has no block but those that are run here', () => {
    expect(blocks.map(({ language }) => language)).toEqual(['sh', 'sh', 'sh', 'ts', 'json', 'sh', 'js', 'sh']);
    const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
    expect([pack, install, registryOf]).toEqual([
      'make build && npm pack\n', // as `packInto()` does it, of what `make test` has built
      `npm install ../rollcall/rollcall-${version}.tgz\n`,
      'export ROLLCALL_REGISTRY=etcd://127.0.0.1:2379\n',
    ]);
  });

  it('shows two Nest services that find each other', async () => {
    writeFileSync(join(folder, 'main.ts'), nest as string);
    writeFileSync(join(folder, 'tsconfig.json'), config as string);
    await follow(runNest);
    expect([...running.keys()]).toEqual(['orders', 'stock']);
  });

  it('shows an Express service that leaves traffic and comes back', async () => {
    writeFileSync(join(folder, 'shop.mjs'), ported(express));
    await follow(runExpress);
    const shop = running.get('shop');
    shop?.kill('SIGTERM');
    expect(await shop?.exit).toMatchObject({ signal: 'SIGTERM' });
    expect(await registry.getService('shop')).toEqual([]);
  });
});
