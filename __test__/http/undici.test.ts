// Calls by name through undici 6, 7 and 8, by the built-in fetch of each Node.js and by their own: every pair that can be.

import { cpSync, mkdirSync, readdirSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { beforeAll, describe, expect, it } from 'vitest';
import { tool } from '../packaging/tools.js';
import { temporaryFolder } from '../support/process.js';
import { clients, dist, nodeOf } from './project.js';

const root = fileURLToPath(new URL('../..', import.meta.url));
const matrix = fileURLToPath(new URL('fixtures/matrix.mjs', import.meta.url));
const own = Number(process.versions.node.split('.')[0]);
/** Besides this one; all of them in `make hard`. */
const nodes = (process.env.NODES ?? '26').split(',').map(Number);
let packages: string;
const undici = (major: number) => join(packages, 'node_modules', `undici${major}`, 'index.js');

beforeAll(async () => {
  packages = await clients();
});

/** undici 8 does not run on Node.js 20. */
const majorsOn = (node: number) => (node < 22 ? [6, 7] : [6, 7, 8]);

describe.each([...new Set([own, ...nodes])])('on Node.js %i', (major) => {
  it('all kinds of calls succeed, by every fetch over every undici', { timeout: 180_000 }, async ({ skip }) => {
    const node = major === own ? process.execPath : await nodeOf(major);
    if (node === undefined) return skip(`there is no package of Node.js ${major} for this machine`);
    const majors = majorsOn(major);
    const fetches = Object.fromEntries(majors.map((other) => [`undici ${other}`, undici(other)]));
    for (const inner of majors) {
      const given = { rollcall: dist, undici: undici(inner), fetches };
      const {
        told,
        inFlight,
        open,
        node: version,
      } = JSON.parse(await tool(node, [matrix, JSON.stringify(given)], root));
      expect(version).toMatch(new RegExp(`^v${major}\\.`));
      const fetched = ['createFetch', 'built in', ...Object.keys(fetches)];
      expect(told, `over undici ${inner}`).toEqual({
        ...Object.fromEntries(fetched.map((name) => [name, {}])), // by name, what failed
        request: { status: 200, length: 1 },
      });
      // No connection is left after close().
      expect({ inFlight, open }).toEqual({ inFlight: 0, open: 0 });
    }
  });
});

/** A project with rollcall as it is installed, and with this beside it. */
async function project({ onTestFinished }: { onTestFinished(finish: () => void): void }, undiciFolder?: string) {
  const { path, remove } = temporaryFolder('rollcall-http-');
  onTestFinished(remove);
  const installed = join(path, 'node_modules', 'rollcall');
  mkdirSync(installed, { recursive: true });
  for (const name of readdirSync(root).filter((name) => /^(dist|index\.js|package\.json|.+\.node)$/.test(name))) {
    cpSync(join(root, name), join(installed, name), { recursive: true });
  }
  if (undiciFolder) symlinkSync(undiciFolder, join(path, 'node_modules', 'undici'));
  return (script: string, node = process.execPath) => tool(node, ['-e', `(async () => { ${script} })();`], path);
}

const CALL = `
  const { connect } = require('rollcall');
  const { createFetch, ServiceAgent } = require('rollcall/http');
  const server = require('node:http').createServer((request, response) => response.end(request.headers.host));
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const registry = await connect('memory://project?logger=0');
  await registry.register({ name: 'orders', endpoints: ['http://127.0.0.1:' + server.address().port] });
  const loaded = () => Object.keys(require.cache).some((path) => /undici/.test(path) && !/rollcall/.test(path));
  const end = () => { server.closeAllConnections(); server.close(); return registry.close(); };
  const slots = () => [1, 2].map((n) => globalThis[Symbol.for('undici.globalDispatcher.' + n)]);
`;

describe('the undici of the program', () => {
  it('is found, with the first call; the built-in fetch goes on as it did', async (context) => {
    for (const major of majorsOn(own)) {
      const run = await project(context, join(packages, 'node_modules', `undici${major}`));
      const told = await run(`${CALL}
        const fetch = createFetch(registry);
        const before = loaded();
        new Headers();
        const [slot] = slots();
        const host = await (await fetch('http://orders/')).text();
        console.log(JSON.stringify([before, loaded(), host, slot !== undefined && slots()[0] === slot]));
        await fetch.close();
        await end();`);
      expect(JSON.parse(told), `undici ${major}`).toEqual([false, true, 'orders', true]);
    }
  });

  it.runIf(nodes.includes(22))(
    'stays out of the way of the built-in fetch on Node.js 22, undici 8 too',
    async (context) => {
      const node = await nodeOf(22);
      if (node === undefined) return context.skip('there is no package of Node.js 22 for this machine');
      const run = await project(context, join(packages, 'node_modules', 'undici8'));
      const told = await run(
        `${CALL}
        new Headers();
        const [slot] = slots();
        new ServiceAgent(registry);
        console.log(JSON.stringify([loaded(), slot !== undefined && slots()[0] === slot]));
        await end();`,
        node,
      );
      expect(JSON.parse(told)).toEqual([true, true]);
    },
  );

  it('is not needed: the built-in fetch calls the address, and what it can not do is refused', async (context) => {
    const run = await project(context);
    const told = await run(`${CALL}
      const fetch = createFetch(registry);
      const host = await (await fetch('http://orders/')).text();
      const problem = async (call) => { try { await call(); } catch (error) { return error.code + ' ' + error.message; } };
      console.log(JSON.stringify([
        host === '127.0.0.1:' + server.address().port,
        await problem(() => createFetch(registry, { serverName: 'gold' })('http://orders/')),
        await problem(() => createFetch(registry, { undici: false, tls: {} })),
        await problem(() => new ServiceAgent(registry)),
      ]));
      await end();`);
    const none = 'it needs undici, and there is none: install undici ^6.14 || ^7 || ^8';
    expect(JSON.parse(told)).toEqual([
      true,
      `ERR_INVALID_ARGUMENT options.serverName: ${none}`,
      `ERR_INVALID_ARGUMENT options.tls: ${none}`,
      'ERR_UNSUPPORTED ServiceAgent: there is no undici: install undici ^6.14 || ^7 || ^8',
    ]);
  });

  it.runIf(own < 22)('that does not run on this Node.js is refused by name', async (context) => {
    const run = await project(context, join(packages, 'node_modules', 'undici8'));
    const told = await run(`${CALL}
      const error = await createFetch(registry)('http://orders/').catch((error) => error);
      console.log(JSON.stringify([error.code, error.message, error.operation]));
      await end();`);
    expect(JSON.parse(told)).toEqual([
      'ERR_UNSUPPORTED',
      `undici 8 can't be loaded on Node.js ${process.versions.node}: install one that can, of undici ^6.14 || ^7 || ^8`,
      'fetch',
    ]);
  });
});
