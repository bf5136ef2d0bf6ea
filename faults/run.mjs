// `make faults`: the fault run is TypeScript, which Node.js 20 does not read by itself.
import { fileURLToPath } from 'node:url';
import { runnerImport } from 'vite';

const { module } = await runnerImport(fileURLToPath(new URL('./main.ts', import.meta.url)), { logLevel: 'error' });
process.exitCode = await module.main(process.env);
