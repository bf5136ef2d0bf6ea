// Follows a configuration of three keys, and changes all of them at once, to the same number.
import { connectCoord, defineConfig } from 'rollcall/coord';
import { call, obey, pause, role, tell, untilDone } from './actor.mjs';

const CONNECT_MS = 10_000;
const CALL_MS = 10_000;
const LOOK_MS = 50;

const { of, folders, changeMs } = role.shared;
const [env, service] = folders;
/** Two are layers of one configuration, the third another configuration whose layers lie in the same folders. */
const keys = ['/config/global/limits', `/config/${env}/${service}/limits`, `/config/${env}/${service}/twin`];
const schema = { '~standard': { version: 1, vendor: 'faults', validate: (value) => ({ value }) } };

const coord = await untilDone('connect', '', CONNECT_MS, () =>
  connectCoord({
    ...{ ...role.options, env, service, instance: role.id },
    ...{ connectTimeoutMs: CONNECT_MS, timeoutMs: CALL_MS, logger: false },
  }),
);
let leaving = false;

async function follow() {
  const open = (name, value) =>
    coord.config.open(defineConfig({ key: `/config/{env}/{service}/${name}`, schema, default: value }));
  const [limits, twin] = await untilDone('open', of, CONNECT_MS, () =>
    Promise.all([open('limits', { n0: 0, n1: 0 }), open('twin', { n2: 0 })]),
  );
  const says = () => {
    const values = [limits.value.n0, limits.value.n1, twin.value.n2];
    tell('config', { of, stale: limits.stale || twin.stale, revision: Number(limits.revision), values });
  };
  limits.on('change', says).on('stale', says).on('fresh', says);
  limits.on('reset', () => tell('reset', { of }));
  says();
}

/** To see that the run finds it: reads one key after the other. */
async function followNaively() {
  for (; !leaving; await pause(LOOK_MS)) {
    const values = [];
    let revision = 0;
    for (const [i, key] of keys.entries()) {
      const entry = await coord.config.raw(key).catch(() => undefined);
      values.push(JSON.parse(entry?.value ?? '{}')[`n${i}`] ?? 0);
      revision = Math.max(revision, Number(entry?.revision ?? 0));
    }
    tell('config', { of, stale: false, revision, values });
  }
}

async function change() {
  for (; !leaving; await pause(changeMs * (0.5 + Math.random()))) {
    const { value: read } = await call('read', of, CALL_MS, async () => ({ entry: await coord.config.raw(keys[0]) }));
    if (!read) continue;
    const n = JSON.parse(read.entry?.value ?? '{"n0":0}').n0 + 1;
    const changes = Object.fromEntries(keys.map((key, i) => [key, { [`n${i}`]: n }]));
    const ifRevisions = { [keys[0]]: read.entry?.revision ?? 0n };
    await call('set', of, CALL_MS, () => coord.config.setAll(changes, { ifRevisions }), { n });
  }
}

obey({
  async leave() {
    leaving = true;
    await call('close', '', CALL_MS, () => coord.close());
    process.exit(0);
  },
});
void (role.naive ? followNaively() : follow());
void change();
