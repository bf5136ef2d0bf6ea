// Packs the package as it lies here, installs it into an empty folder and uses it: what a platform must at least do.

import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const folder = mkdtempSync(join(tmpdir(), 'rollcall-smoke-'));
const shell = process.platform === 'win32'; // npm is a script there
const run = (command, args, cwd = folder) => execFileSync(command, args, { cwd, shell, encoding: 'utf8' });

try {
  const [{ filename }] = JSON.parse(run('npm', ['pack', '--json', '--pack-destination', folder], root));
  writeFileSync(join(folder, 'package.json'), '{ "name": "smoke", "private": true }\n');
  run('npm', ['install', '--offline', '--no-audit', '--no-fund', join(folder, filename)]);
  const program = `
    import { connect } from 'rollcall';
    import { Etcd3 } from 'rollcall/etcd';
    const registry = await connect('memory://smoke');
    await registry.register({ name: 'orders', endpoints: ['http://0.0.0.0:80'] });
    const [{ endpoints }] = await registry.getService('orders');
    await registry.close();
    const client = new Etcd3({ hosts: '127.0.0.1:1', logger: false });
    const code = await client.ready({ timeoutMs: 200 }).then(() => 'ready', ({ code }) => code);
    await client.close();
    console.log(endpoints[0], code);`;
  writeFileSync(join(folder, 'smoke.mjs'), program);
  const told = run(process.execPath, ['smoke.mjs']);
  if (!/^http:\/\/(?!0\.0\.0\.0).+:80 ERR_(TIMEOUT|UNAVAILABLE)/.test(told)) throw new Error(`unexpected: ${told}`);
  console.log(`${process.platform} ${process.arch}: ${told}`);
} finally {
  rmSync(folder, { recursive: true, force: true });
}
