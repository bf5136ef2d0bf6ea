// Competes for a lock and for an election, and says so whenever it looks and still holds.
import { Etcd3 } from 'rollcall/etcd';
import { call, now, obey, pause, role, tell } from './actor.mjs';

const TTL = 5;
/** A place in the queue may take long; this long it may take to be told that it did. */
const WAIT_MS = 30_000;
const CALL_MS = 10_000;
const LOOK_MS = 50;

const client = new Etcd3({
  hosts: role.options.hosts.map((host) => `http://${host}`),
  logger: false,
  timeoutMs: CALL_MS,
});
let leaving = false;
let stays = 0;
const stay = () => role.stays[stays++ % role.stays.length];

/** Holds for a while, looking all the time; says how it ended. */
async function hold(of, token, isHeld) {
  let kind = 'held';
  for (const until = Date.now() + stay(); Date.now() < until && !leaving; await pause(LOOK_MS)) {
    const at = now(); // before the look: what it says is true of a later moment
    if (!isHeld()) return 'lost';
    tell(kind, { at, of, token });
    kind = 'holding';
  }
  return 'released';
}

async function lock() {
  while (!leaving) {
    const mutex = client.mutex(role.lock, { ttl: TTL });
    const { error } = await call('acquire', role.lock, WAIT_MS, () => mutex.acquire({ timeoutMs: WAIT_MS }));
    if (error) {
      await pause(200);
      continue;
    }
    const token = Number(mutex.revision);
    const why = await hold(role.lock, token, () => mutex.isHeld);
    tell('over', { of: role.lock, token, why });
    await call('release', role.lock, CALL_MS, () => mutex.release());
    await pause(stay());
  }
}

async function campaign() {
  while (!leaving) {
    const candidacy = client.election(role.election, TTL).campaign(role.who);
    candidacy.on('error', () => {}); // wait() and isLeader say it
    const late = setTimeout(() => void candidacy.resign().catch(() => {}), WAIT_MS);
    const { error } = await call('campaign', role.election, WAIT_MS, () => candidacy.wait());
    clearTimeout(late);
    if (!error && candidacy.isLeader) {
      const token = Number(candidacy.revision);
      const why = await hold(role.election, token, () => candidacy.isLeader);
      tell('over', { of: role.election, token, why });
    }
    await call('resign', role.election, CALL_MS, () => candidacy.resign());
    await pause(stay());
  }
}

obey({
  async leave() {
    leaving = true;
    await call('close', '', CALL_MS, () => client.close());
    process.exit(0);
  },
});
void lock();
void campaign();
