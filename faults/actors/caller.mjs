// Calls services by name: requests that may be sent again, and such that may not.
import { connect } from 'rollcall';
import { call, obey, pause, role, untilDone } from './actor.mjs';

const CONNECT_MS = 10_000;
const READY_MS = 10_000;
const CALL_MS = 10_000;
const PAUSE_MS = 100;

const registry = await untilDone('connect', '', CONNECT_MS, () =>
  connect({ ...role.options, connectTimeoutMs: CONNECT_MS, timeoutMs: CALL_MS, logger: false }),
);
let leaving = false;

async function callers(name) {
  const service = registry.service(name, {
    allowLocal: true, // all servers are on this machine
    // A frozen server is found by that alone; with the default, 30 s, nobody would come back within most runs.
    http: { timeoutMs: CALL_MS, perTryTimeoutMs: role.perTryMs },
    outlier: { baseEjectionMs: role.asideMs, maxEjectionMs: role.asideMs },
  });
  // Until the first list there is nobody to call.
  await untilDone('ready', name, READY_MS, () => service.ready({ timeoutMs: READY_MS, min: 1 }));
  const calls = async (what, init) => {
    for (; !leaving; await pause(PAUSE_MS)) {
      await call(what, name, CALL_MS, async () => (await service.fetch('/', { ...init })).text());
    }
  };
  void calls('fetch', {});
  void calls('post', { method: 'POST', body: 'order' });
}

obey({
  async leave() {
    leaving = true;
    await call('close', '', CALL_MS, () => registry.close());
    process.exit(0);
  },
});
for (const name of role.called) void callers(name);
