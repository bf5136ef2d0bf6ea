// Before `npm pack` and `npm publish`: nothing that would not run is packed.

import { existsSync, readdirSync, readFileSync } from 'node:fs';

const here = (path) => new URL(`../${path}`, import.meta.url);
const built = existsSync(here('dist/cjs/index.js'));
const native = readdirSync(here('.')).some((name) => name.endsWith('.node'));
// In a release the native files are in packages of their own, which `napi pre-publish` has written down.
const manifest = JSON.parse(readFileSync(here('package.json'), 'utf8'));
const released = 'optionalDependencies' in manifest;

if (!built || (!native && !released)) {
  console.error('Nothing to pack: there is no dist or no .node file; run npm run build first.');
  process.exit(1);
}

// Where this lies is known to whoever releases it: the links of the README and the provenance lead there.
if (released && !manifest.repository) {
  console.error('Not to be released: package.json has no repository; run npm pkg set repository.url=….');
  process.exit(1);
}
