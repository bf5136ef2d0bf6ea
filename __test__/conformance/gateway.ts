// Asks an etcd through its own JSON gateway and metrics page: what the suite asserts on, the product has no part in.
import type { Stored } from './scope.js';

const b64 = (text: string): string => Buffer.from(text).toString('base64');
const text = (base64: string | undefined): string => Buffer.from(base64 ?? '', 'base64').toString('utf8');

interface RangeAnswer {
  kvs?: { key: string; value?: string; lease?: string; create_revision: string; mod_revision: string }[];
}

async function ask<T>(url: string, path: string, body: unknown): Promise<T> {
  const answer = await fetch(`${url}${path}`, {
    method: 'POST',
    body: JSON.stringify(body),
    signal: AbortSignal.timeout(10_000),
  });
  if (!answer.ok) throw new Error(`${path}: ${answer.status} ${await answer.text()}`);
  return (await answer.json()) as T;
}

/** The first key after all keys that begin with the prefix. */
const endOf = (prefix: string): string =>
  prefix.slice(0, -1) + String.fromCharCode(prefix.charCodeAt(prefix.length - 1) + 1);

async function range(url: string, body: unknown): Promise<Stored[]> {
  const { kvs = [] } = await ask<RangeAnswer>(url, '/v3/kv/range', body);
  return kvs.map((kv) => ({
    key: text(kv.key),
    value: text(kv.value),
    lease: kv.lease ?? '0',
    createRevision: Number(kv.create_revision),
    modRevision: Number(kv.mod_revision),
  }));
}

export const stored = async (url: string, key: string): Promise<Stored | undefined> =>
  (await range(url, { key: b64(key) }))[0];

/** Everything under a prefix, which must be ASCII. */
export const storedUnder = (url: string, prefix: string): Promise<Stored[]> =>
  range(url, { key: b64(prefix), range_end: b64(endOf(prefix)) });

export const put = (url: string, key: string, value: string): Promise<unknown> =>
  ask(url, '/v3/kv/put', { key: b64(key), value: b64(value) });

export const remove = (url: string, key: string): Promise<unknown> => ask(url, '/v3/kv/deleterange', { key: b64(key) });

export const removeUnder = (url: string, prefix: string): Promise<unknown> =>
  ask(url, '/v3/kv/deleterange', { key: b64(prefix), range_end: b64(endOf(prefix)) });

/** Puts and deletes in one transaction. */
export const transact = (url: string, puts: Record<string, string>, deletes: string[] = []): Promise<unknown> =>
  ask(url, '/v3/kv/txn', {
    success: [
      ...Object.entries(puts).map(([key, value]) => ({ request_put: { key: b64(key), value: b64(value) } })),
      ...deletes.map((key) => ({ request_delete_range: { key: b64(key) } })),
    ],
  });

export const revoke = (url: string, lease: string): Promise<unknown> => ask(url, '/v3/lease/revoke', { ID: lease });

/** Seconds granted to a lease; undefined when the server has no such lease. */
export async function grantedTtl(url: string, lease: string): Promise<number | undefined> {
  const answer = await ask<{ TTL?: string; grantedTTL?: string }>(url, '/v3/lease/timetolive', { ID: lease });
  return answer.grantedTTL === undefined || Number(answer.TTL) < 0 ? undefined : Number(answer.grantedTTL);
}

export async function leases(url: string): Promise<string[]> {
  const answer = await ask<{ leases?: { ID: string }[] }>(url, '/v3/lease/leases', {});
  return (answer.leases ?? []).map((lease) => lease.ID);
}

export async function compact(url: string): Promise<void> {
  const { header } = await ask<{ header: { revision: string } }>(url, '/v3/kv/range', { key: b64('\0') });
  await ask(url, '/v3/kv/compaction', { revision: header.revision, physical: true });
}

/** The sum of a metric over its labels that match. */
export async function metric(url: string, name: string, labels = ''): Promise<number> {
  const page = await (await fetch(`${url}/metrics`, { signal: AbortSignal.timeout(10_000) })).text();
  return page
    .split('\n')
    .filter((line) => (line.startsWith(`${name}{`) || line.startsWith(`${name} `)) && line.includes(labels))
    .reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(' ') + 1)), 0);
}
