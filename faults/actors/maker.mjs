// Makes ids, a burst of them each time, with a worker id of the store that it shares with its kind.
import { connectCoord } from 'rollcall/coord';
import { createUid } from 'rollcall/uid';
import { call, obey, pause, role, tell, untilDone } from './actor.mjs';

const CALL_MS = 10_000;
const WAIT_MS = 60_000;
const EVERY_MS = 200;
/** Some twelve milliseconds of ids. */
const BURST = 50_000;

const { service, layout, windowMs } = role.ids;
const { ttlMs } = role.options;
const coord = await untilDone('connect', '', CALL_MS, () =>
  connectCoord({ ...role.options, connectTimeoutMs: CALL_MS, timeoutMs: CALL_MS, logger: false }),
);

/** To see that the run finds it: a lock is its worker id, which it trusts for ever. */
async function naive() {
  for (let workerId = 0; ; workerId = (workerId + 1) % 2 ** layout.workerBits) {
    const held = await coord.lock.tryAcquire(`faults-worker/${workerId}`, { ttlMs }).catch(() => undefined);
    if (held) return await createUid({ workerId, layout, logger: false });
    await pause(50);
  }
}

const options = { coord, service, layout, windowMs, ttlMs, holder: role.who, timeoutMs: CALL_MS, logger: false };
const uid = await untilDone('number', service, CALL_MS + 1000, role.naive ? naive : () => createUid(options));

/** Ids that follow each other are one run of them: the first, and how many. */
function runsOf(ids) {
  const runs = [];
  let start = 0;
  for (let i = 1; i <= ids.length; i++) {
    if (i < ids.length && ids[i] === ids[i - 1] + 1n) continue;
    runs.push([String(ids[start]), i - start]);
    start = i;
  }
  return runs;
}

let isOver = false;
obey({
  async leave() {
    isOver = true;
    await call('close', '', CALL_MS, () => uid.close());
    await call('close', '', CALL_MS, () => coord.close());
    process.exit(0);
  },
});
// Not in step: two makers whose bursts never meet would not show that they have one number.
for (; !isOver; await pause(EVERY_MS * (0.5 + Math.random()))) {
  try {
    tell('ids', { of: service, runs: runsOf(uid.nextMany(BURST)) });
  } catch {
    if (!isOver) await call('ready', service, WAIT_MS, () => uid.ready({ timeoutMs: WAIT_MS - 1000 }));
  }
}
