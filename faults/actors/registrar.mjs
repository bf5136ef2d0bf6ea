// Keeps one instance registered, and answers calls. Each record says how many there were before it.
import { once } from 'node:events';
import { createServer } from 'node:http';
import { connect } from 'rollcall';
import { call, obey, role, tell, untilDone } from './actor.mjs';

const CONNECT_MS = 10_000;
const CALL_MS = 5000;

// The counter outlives the process: it goes on where the one before it was killed.
let n = role.first;
let registration;

// An instance answers where it says, whether it is in the registry or not: the agents of Consul look, and callers call.
const server = createServer(async (request, response) => {
  for await (const _ of request);
  response.end(role.id);
});
server.keepAliveTimeout = 60_000; // longer than callers keep a connection that nobody uses
await once(server.listen(role.port, '127.0.0.1'), 'listening');

const registry = await untilDone('connect', role.id, CONNECT_MS, () =>
  connect({ ...role.options, connectTimeoutMs: CONNECT_MS, timeoutMs: CALL_MS, logger: false }),
);

async function register() {
  registration = await untilDone(
    'register',
    role.id,
    CALL_MS,
    () => {
      const endpoints = [`http://127.0.0.1:${role.port}`];
      return registry.register({ id: role.id, name: role.name, endpoints, metadata: { n: String(n) } });
    },
    () => ({ n: ++n }),
  );
  for (const event of ['lost', 'restored', 'replaced', 'stalled', 'out', 'in']) {
    registration.on(event, (reason) => tell('event', { of: role.id, event, ...(reason && { reason }) }));
  }
}

const deregister = () => untilDone('deregister', role.id, CALL_MS, () => registration.deregister());

obey(
  {
    async update() {
      n++;
      // What is wanted stays changed when the call fails: the registration itself goes on with it.
      await call('update', role.id, CALL_MS, () => registration.update({ metadata: { n: String(n) } }), { n });
    },
    // What is wanted stays changed when these fail as well.
    async withdraw() {
      await call('withdraw', role.id, CALL_MS, () => registration.withdraw());
    },
    async restore() {
      if (registration.outFor.size > 0) await call('restore', role.id, CALL_MS, () => registration.restore());
    },
    async reregister() {
      await deregister();
      await register();
    },
    async leave() {
      await call('close', role.id, CALL_MS, () => registry.close());
      process.exit(0);
    },
  },
  register(),
);
