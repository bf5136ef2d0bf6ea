// The reference of the public API, as `make docs` builds it: without a warning, with the pages of documentation beside it.
import { existsSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';
import { tool } from './tools.js';

const root = fileURLToPath(new URL('../..', import.meta.url));

it('is built, and its pages lead to one another', async () => {
  const api = join(root, 'build', 'api');
  rmSync(api, { recursive: true, force: true });
  await tool(process.execPath, ['scripts/docs/build.mjs'], root);
  const page = (name: string) => readFileSync(join(api, name), 'utf8');
  // From the README to the pages of both frameworks and of those who come from etcd3, and from there on.
  for (const name of [
    'nestjs',
    'midway',
    'migrating-from-etcd3',
    'calling',
    'coord',
    'breaker',
    'uid',
    'once',
    'ratelimit',
    'running',
    'faq',
  ])
    expect(page('index.html'), name).toContain(`href="documents/${name}.html`);
  expect(page('documents/faq.html')).toContain('href="running.html');
  for (const name of [
    'index',
    'etcd',
    'nest',
    'midway',
    'http',
    'coord',
    'breaker',
    'uid',
    'once',
    'ratelimit',
    'grpc',
  ])
    expect(existsSync(join(api, 'modules', `${name}.html`)), name).toBe(true);
}, 600_000);
