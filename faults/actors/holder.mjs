// Takes locks of every kind, stands for an election, and writes under its lock: what nobody else may do at that moment.
import { connectCoord } from 'rollcall/coord';
import { Etcd3 } from 'rollcall/etcd';
import { call, now, obey, pause, role, tell, untilDone } from './actor.mjs';

/** A place in the queue may take long; this long it may take to be told that it did. */
const WAIT_MS = 30_000;
const CALL_MS = 10_000;
const LOOK_MS = 50;
const WRITE_MS = 300;

const { mutex, pool, permits, election, register } = role.held;
const { ttlMs } = role.options;
const coord = await untilDone('connect', '', CALL_MS, () =>
  connectCoord({ ...role.options, connectTimeoutMs: CALL_MS, timeoutMs: CALL_MS, logger: false }),
);
const etcd = new Etcd3({
  hosts: role.options.hosts.map((host) => `http://${host}`),
  logger: false,
  timeoutMs: CALL_MS,
});
let leaving = false;
let stays = 0;
const stay = () => role.stays[stays++ % role.stays.length];

/** To see that the run finds it: once it has a lock it asks nobody, neither a clock nor the store, whether it has it still. */
const naive = (isHeld) => (role.naive ? () => true : isHeld);

/** Holds for a while, looking all the time; says how it ended. */
async function hold(of, token, isHeld, permits) {
  let kind = 'held';
  for (const until = now() + stay(); now() < until && !leaving; await pause(LOOK_MS)) {
    const at = now(); // before the look: what it says is true of a later moment
    if (!isHeld()) return 'lost';
    tell(kind, { at, of, token, ...(kind === 'held' && permits !== undefined && { permits }) });
    kind = 'holding';
  }
  return 'released';
}

/** Holds it, and writes the token to the register all the while, by a transaction that etcd makes only for who holds the lock. */
async function writes(held, isHeld) {
  let over = false;
  const guarded = (client) => (role.naive ? client.if(register, 'Version', '>', -1) : client.if(held.guard()));
  const writing = (async () => {
    for (; !over && isHeld(); await pause(WRITE_MS)) {
      const { value } = await call('write', register, CALL_MS, () =>
        guarded(etcd)
          .then(etcd.get(register), etcd.put(register).value(String(held.token)))
          .commit(),
      );
      if (!value?.succeeded) continue;
      const [{ response_range: found }] = value.responses;
      const [before] = found.kvs.map((kv) => ({ token: Number(kv.value), revision: Number(kv.mod_revision) }));
      tell('wrote', {
        of: register,
        token: Number(held.token),
        revision: Number(value.header.revision),
        ...(before && { before }),
      });
    }
  })();
  const why = await hold(mutex, Number(held.token), isHeld);
  over = true;
  await writing;
  return why;
}

async function takes(of, lock, during) {
  while (!leaving) {
    const { value: held } = await call('acquire', of, WAIT_MS, () => lock.acquire({ timeoutMs: WAIT_MS }));
    if (!held) {
      await pause(200);
      continue;
    }
    const why = await during(
      held,
      naive(() => held.isHeld),
    );
    tell('over', { of, token: Number(held.token), why });
    await call('release', of, CALL_MS, () => held.release());
    await pause(stay());
  }
}

async function stands() {
  while (!leaving) {
    const campaign = coord.elections.campaign(election, { value: role.who, ttlMs });
    const late = setTimeout(() => void campaign.resign().catch(() => {}), WAIT_MS);
    const { value: term } = await call(
      'campaign',
      election,
      WAIT_MS,
      async () => (await campaign.leaders().next()).value,
    );
    clearTimeout(late);
    if (term) {
      const token = Number(term.token);
      // It stands again by itself, and may lead another term.
      const isLeader = naive(() => campaign.token === term.token);
      const why = await hold(election, token, isLeader);
      tell('over', { of: election, token, why });
    }
    await call('resign', election, CALL_MS, () => campaign.resign());
    await pause(stay());
  }
}

obey({
  async leave() {
    leaving = true;
    await call('close', '', CALL_MS, () => coord.close());
    await call('close', '', CALL_MS, () => etcd.close());
    process.exit(0);
  },
});
void takes(mutex, coord.lock.mutex(mutex, { ttlMs }), writes);
void takes(pool, coord.lock.semaphore(pool, permits, { ttlMs }), (held, isHeld) =>
  hold(pool, Number(held.token), isHeld, permits),
);
void stands();
