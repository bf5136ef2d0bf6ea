// Follows every name and the names themselves, and asks for each from time to time.
import { connect } from 'rollcall';
import { call, obey, pause, role, tell, untilDone } from './actor.mjs';

const CONNECT_MS = 10_000;
const CALL_MS = 5000;

const registry = await untilDone('connect', '', CONNECT_MS, () =>
  connect({ ...role.options, connectTimeoutMs: CONNECT_MS, timeoutMs: CALL_MS, logger: false }),
);
let leaving = false;

const listed = (list) => Object.fromEntries(list.map(({ id, metadata }) => [id, Number(metadata.n)]));

/** Where the registry does not count, 0. */
const counted = (list) => Object.fromEntries(list.map(({ name, count = 0 }) => [name, count]));

async function follow(name, watcher, shown) {
  watcher.on('stale', () => tell('stale', { name }));
  watcher.on('fresh', () => tell('fresh', { name }));
  try {
    for await (const list of watcher) tell('list', { name, stale: watcher.stale, list: shown(list) });
    if (!leaving) tell('ended', { name });
  } catch (error) {
    tell('ended', { name, error: `${error?.code}: ${error?.message}` });
  }
}

async function ask() {
  while (!leaving) {
    for (const name of role.names) {
      await call('get', name, CALL_MS, () => registry.getService(name));
      await pause(300);
    }
  }
}

obey({
  async leave() {
    leaving = true;
    await call('close', '', CALL_MS, () => registry.close());
    process.exit(0);
  },
});
for (const name of role.names) void follow(name, registry.watch(name), listed);
void follow(role.theNames, registry.watchServices(), counted);
void ask();
