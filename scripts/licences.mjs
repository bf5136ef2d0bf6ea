// Checks the licences of all npm packages of the lock file. deny.toml does the same for Rust, by cargo-deny.
import { readFileSync } from 'node:fs';

const everywhere = new Set([
  '0BSD',
  'Apache-2.0',
  'BSD-2-Clause',
  'BSD-3-Clause',
  'BSL-1.0',
  'BlueOak-1.0.0',
  'CC0-1.0',
  'ISC',
  'MIT',
  'Unlicense',
  'Zlib',
]);
/** Packages whose package.json has no id of SPDX, by what their file LICENSE says. Contenders of benchmarks. */
const written = { 'flake-idgen': 'MIT', 'nodejs-snowflake': 'Apache-2.0' };
// Of tools, which users never get.
const development = new Set([...everywhere, 'CC-BY-4.0', 'MPL-2.0', 'PSF-2.0', 'Python-2.0']);

/** Whether an SPDX expression of ids, AND, OR and parentheses can be kept with these licences. */
function allowed(expression, licences) {
  const tokens = expression.match(/\(|\)|[^\s()]+/g) ?? [];
  let at = 0;
  const one = () => {
    if (tokens[at] !== '(') return licences.has(tokens[at++]);
    at++;
    const inside = any();
    if (tokens[at++] !== ')') throw new Error(`not an SPDX expression: ${expression}`);
    return inside;
  };
  const all = () => {
    let good = one();
    while (tokens[at] === 'AND') {
      at++;
      good = one() && good;
    }
    return good;
  };
  const any = () => {
    let good = all();
    while (tokens[at] === 'OR') {
      at++;
      good = all() || good;
    }
    return good;
  };
  const good = any();
  return good && at === tokens.length;
}

const { packages } = JSON.parse(readFileSync(new URL('../package-lock.json', import.meta.url), 'utf8'));
let count = 0;
const bad = [];
for (const [path, { version, dev = false, devOptional = false, link = false, ...known }] of Object.entries(packages)) {
  if (path === '' || link) continue;
  count++;
  const license = written[path.replace(/^.*node_modules\//, '')] ?? known.license;
  if (typeof license !== 'string' || !allowed(license, dev && !devOptional ? development : everywhere)) {
    const use = dev ? 'development' : 'production';
    bad.push(`${path.replace(/^.*node_modules\//, '')} ${version}: ${license ?? 'no licence'} (${use})`);
  }
}
if (count === 0) bad.push('package-lock.json names no package');
for (const line of bad) console.error(`licence not allowed: ${line}`);
if (bad.length === 0) console.log(`npm licences ok (${count} packages)`);
process.exitCode = bad.length > 0 ? 1 : 0;
