// Does jobs once: all of its kind do the same job at about the same time, each for a while, and say which run's result they were given.
import { connectCoord } from 'rollcall/coord';
import { coordOnce, createOnce } from 'rollcall/once';
import { call, obey, pause, role, tell, untilDone } from './actor.mjs';
import { again, leave } from './holding.mjs';

const CONNECT_MS = 10_000;
const STORE_MS = 5000;
/** What somebody else runs is waited for so long; one's own run takes three seconds, and its claim and its end their answers. */
const JOIN_MS = 20_000;
const CALL_MS = 60_000;
const TTL_MS = 600_000;

const { of, everyMs } = role.jobs;
const { ttlMs } = role.options;
const coord = await untilDone('connect', '', CONNECT_MS, () =>
  connectCoord({ ...role.options, connectTimeoutMs: CONNECT_MS, timeoutMs: STORE_MS, logger: false }),
);
const once = createOnce({ store: coordOnce(coord), logger: false });
let turns = 0;

/** What is done once: it says so, and takes its time; it stops when the run is lost, and gives a result all the same. */
async function job(key, { token, attempt, signal }) {
  tell('ran', { of: key, token: Number(token), attempt });
  const until = Date.now() + role.stays[turns++ % role.stays.length];
  while (Date.now() < until && !signal.aborted) await pause(20);
  return { token: Number(token) };
}

/** To see that the run finds it: a mark that holds for a time of the clock, and a result that whoever comes to its end writes. */
async function naively(key, run) {
  const at = `/naive/${key}`;
  for (;;) {
    const entry = await coord.config.raw(at);
    const { attempt = 0, until = 0, result } = JSON.parse(entry?.value ?? '{}');
    if (result !== undefined) return result;
    if (until > Date.now()) {
      await pause(100);
      continue;
    }
    const next = { attempt: attempt + 1, until: Date.now() + ttlMs };
    const token = await coord.config.set(at, next, { ifRevision: entry?.revision ?? 0n });
    const made = await run({ token, attempt: next.attempt, signal: AbortSignal.any([]) });
    await coord.config.set(at, { ...next, result: made });
    return made;
  }
}

void again(async () => {
  const key = `${of}/${Math.floor(Date.now() / everyMs)}`;
  const { value } = await call('execute', key, CALL_MS, () =>
    role.naive
      ? naively(key, (run) => job(key, run))
      : once.execute(key, TTL_MS, (run) => job(key, run), { lockMs: ttlMs, joinTimeoutMs: JOIN_MS }),
  );
  if (value) tell('did', { of: key, token: value.token });
  await pause(200);
  return false;
});

obey({
  async leave() {
    leave();
    await call('close', '', CALL_MS, async () => {
      await once.close();
      await coord.close();
    });
    process.exit(0);
  },
});
