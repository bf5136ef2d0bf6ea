// Takes locks of every kind, stands for an election, and writes under its lock: what nobody else may do at that moment.
import { connectCoord } from 'rollcall/coord';
import { Etcd3 } from 'rollcall/etcd';
import { call, obey, pause, role, tell, untilDone } from './actor.mjs';
import { again, CALL_MS, elected, hold, leave, WAIT_MS } from './holding.mjs';

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

/** To see that the run finds it: once it has a lock it asks nobody, neither a clock nor the store, whether it has it still. */
const naive = (isHeld) => (role.naive ? () => true : isHeld);

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

const takes = (of, lock, during) => async () => {
  const { value: held } = await call('acquire', of, WAIT_MS, () => lock.acquire({ timeoutMs: WAIT_MS }));
  if (!held) return false;
  const why = await during(
    held,
    naive(() => held.isHeld),
  );
  tell('over', { of, token: Number(held.token), why });
  await call('release', of, CALL_MS, () => held.release());
  return true;
};

async function stands() {
  const campaign = coord.elections.campaign(election, { value: role.who, ttlMs });
  const resign = () => campaign.resign();
  const { value: term } = await elected(election, async () => (await campaign.leaders().next()).value, resign);
  if (term) {
    const token = Number(term.token);
    // It stands again by itself, and may lead another term.
    const isLeader = naive(() => campaign.token === term.token);
    const why = await hold(election, token, isLeader);
    tell('over', { of: election, token, why });
  }
  await call('resign', election, CALL_MS, resign);
  return true;
}

obey({
  async leave() {
    leave();
    await call('close', '', CALL_MS, () => coord.close());
    await call('close', '', CALL_MS, () => etcd.close());
    process.exit(0);
  },
});
void again(takes(mutex, coord.lock.mutex(mutex, { ttlMs }), writes));
const pooled = (held, isHeld) => hold(pool, Number(held.token), isHeld, { permits });
void again(takes(pool, coord.lock.semaphore(pool, permits, { ttlMs }), pooled));
void again(stands);
