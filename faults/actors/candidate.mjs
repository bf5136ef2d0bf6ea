// Competes for a lock and for an election, and says so whenever it looks and still holds.
import { Etcd3 } from 'rollcall/etcd';
import { call, obey, role, tell } from './actor.mjs';
import { again, CALL_MS, elected, hold, leave, WAIT_MS } from './holding.mjs';

const TTL = 5;

const client = new Etcd3({
  hosts: role.options.hosts.map((host) => `http://${host}`),
  logger: false,
  timeoutMs: CALL_MS,
});

async function lock() {
  const mutex = client.mutex(role.lock, { ttl: TTL });
  const { error } = await call('acquire', role.lock, WAIT_MS, () => mutex.acquire({ timeoutMs: WAIT_MS }));
  if (error) return false;
  const token = Number(mutex.revision);
  const why = await hold(role.lock, token, () => mutex.isHeld);
  tell('over', { of: role.lock, token, why });
  await call('release', role.lock, CALL_MS, () => mutex.release());
  return true;
}

async function campaign() {
  const candidacy = client.election(role.election, TTL).campaign(role.who);
  candidacy.on('error', () => {}); // wait() and isLeader say it
  const resign = () => candidacy.resign();
  const { error } = await elected(role.election, () => candidacy.wait(), resign);
  if (!error && candidacy.isLeader) {
    const token = Number(candidacy.revision);
    const why = await hold(role.election, token, () => candidacy.isLeader);
    tell('over', { of: role.election, token, why });
  }
  await call('resign', role.election, CALL_MS, resign);
  return true;
}

obey({
  async leave() {
    leave();
    await call('close', '', CALL_MS, () => client.close());
    process.exit(0);
  },
});
void again(lock);
void again(campaign);
