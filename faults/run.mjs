// `make faults`: the fault run is TypeScript, which Node.js 20 does not read by itself. With folders of earlier runs as
// arguments, `node faults/run.mjs build/faults/etcd-7`, their histories are judged anew.
import { fileURLToPath } from 'node:url';
import { runnerImport } from 'vite';

const { module } = await runnerImport(fileURLToPath(new URL('./main.ts', import.meta.url)), { logLevel: 'error' });
process.exitCode = await module.main(process.env, process.argv.slice(2));
