// Stores for the tests of coord: what all of them can do, and a schema without a library.
import { MemoryServer } from 'rollcall';
import {
  ConflictError,
  type Coord,
  type CoordIdentity,
  type CoordOptions,
  connectCoord,
  defineConfig,
  type Entry,
  type StandardSchema,
} from 'rollcall/coord';
import { afterAll, beforeAll, expect, vi } from 'vitest';
import { startConsul } from '../support/consul.js';
import { type EtcdVersion, startEtcd } from '../support/etcd.js';
import { uniqueName, waitFor } from '../support/process.js';
import { startZookeeper } from '../support/zookeeper.js';

/** The size of the hard tests: that of `make hard`, or one that takes seconds. */
export const FULL = process.env.SIZE === 'full';
if (FULL) vi.setConfig({ testTimeout: 600_000 });

/** What Vitest gives a test to tidy up with. */
export interface Finish {
  onTestFinished(fn: () => unknown): void;
}

/** A store, as its clients and its operators see it. */
export interface Place {
  readonly url: string;
  /** It can't be reached from here on. */
  away(): Promise<void>;
  back(): Promise<void>;
  /** Loses all its data. */
  wipe(): Promise<void>;
  close(): Promise<void>;
}

async function memory(): Promise<Place> {
  const namespace = uniqueName('coord');
  const server = MemoryServer.of(namespace);
  return {
    url: `memory://${namespace}`,
    away: async () => server.setAway(true),
    back: async () => server.setAway(false),
    wipe: async () => server.wipe(),
    close: async () => {},
  };
}

/** A server as a place. */
const placeOf = (
  server: Pick<Place, 'url' | 'wipe' | 'close'> & { kill(): Promise<void>; start(): Promise<void> },
): Place => ({
  url: server.url,
  away: () => server.kill(),
  back: () => server.start(),
  wipe: () => server.wipe(),
  close: () => server.close(),
});

const etcd = async (version: EtcdVersion): Promise<Place> => placeOf(await startEtcd({ version }));
const zookeeper = async (): Promise<Place> => placeOf(await startZookeeper());

async function consul(): Promise<Place> {
  const { server, close } = await startConsul({ persistent: true });
  return {
    url: server.url.replace('http:', 'consul:'),
    away: () => server.kill(),
    back: () => server.start(),
    async wipe() {
      await server.kill();
      server.wipe();
      await server.start();
    },
    close,
  };
}

type Row = readonly [string, () => Promise<Place>];

/** Those that hold locks. */
export const HOLDING: readonly Row[] = [
  ['memory', memory],
  ['etcd 3.7.3', () => etcd('3.7.3')],
  ['etcd 3.4.23', () => etcd('3.4.23')],
];

/** Those that keep configuration. */
export const PLACES: readonly Row[] = [...HOLDING, ['Consul', consul], ['ZooKeeper', zookeeper]];

/** The place of the tests of a `describe()`, from the first to the last of them. */
export function placed(start: () => Promise<Place>): Place {
  let there: Place | undefined;
  beforeAll(async () => {
    there = await start();
  });
  afterAll(() => there?.close());
  const place = () => there as Place;
  return {
    get url() {
      return place().url;
    },
    away: () => place().away(),
    back: () => place().back(),
    wipe: () => place().wipe(),
    close: () => place().close(),
  };
}

/** A client that is closed with its test. */
export async function client(
  { onTestFinished }: Finish,
  url: string,
  more: CoordIdentity & Partial<CoordOptions> = {},
): Promise<Coord> {
  const coord = await connectCoord({ url, logger: false, env: 'dev', service: 'orders', ...more });
  onTestFinished(() => coord.close());
  return coord;
}

/** A client of a memory server of its own. */
export const inMemory = (finish: Finish, more: CoordIdentity & Partial<CoordOptions> = {}): Promise<Coord> =>
  client(finish, `memory://${uniqueName('coord')}`, more);

type Result<T> = ReturnType<StandardSchema<unknown, T>['~standard']['validate']>;

/** A schema of this function. */
export const schemaOf = <T>(validate: (value: unknown) => Result<T>): StandardSchema<unknown, T> => ({
  '~standard': { version: 1, vendor: 'tests', validate },
});

/** Takes everything. */
export const anything = schemaOf<unknown>((value) => ({ value }));

/** Takes what has a whole `max`. */
export const limits = schemaOf<{ max: number; [more: string]: unknown }>((value) => {
  const { max } = (value ?? {}) as { max?: unknown };
  if (Number.isInteger(max)) return { value: value as { max: number } };
  return { issues: [{ message: 'expected a whole number', path: ['max'] }] };
});

/** Waits until something is so. */
export const until = (what: string, look: () => unknown): Promise<unknown> =>
  waitFor(async () => Boolean(await look()), { what });

/** Counts up by revision so many times; gives how often another was first. */
export async function countUp({ config }: Coord, key: string, times: number): Promise<number> {
  let conflicts = 0;
  for (let done = 0; done < times; ) {
    const { value, revision } = (await config.raw(key)) as Entry;
    try {
      await config.set(key, Number(value) + 1, { ifRevision: revision });
      done++;
    } catch (error) {
      if (!(error instanceof ConflictError)) throw error;
      conflicts++;
    }
  }
  return conflicts;
}

/** A store takes 128 changes at once; more are refused, and none is made. The client keeps no history. */
export async function expectMostAtOnce({ config }: Coord): Promise<void> {
  const changes = (count: number) => Object.fromEntries(Array.from({ length: count }, (_, n) => [`/many/${n}`, n]));
  expect(await failure(config.setAll(changes(129)))).toMatchObject({
    code: 'ERR_INVALID_ARGUMENT',
    operation: 'setAll',
  });
  expect(await config.list('/many/')).toEqual([]);
  await config.setAll(changes(128));
  expect((await config.list('/many/')).length).toBe(128);
}

/** What a promise rejects with. */
export async function failure(promise: Promise<unknown>): Promise<Error & Record<string, unknown>> {
  try {
    await promise;
  } catch (error) {
    return error as Error & Record<string, unknown>;
  }
  throw new Error('it did not fail');
}

/** The key of `LIMITS` for the service and the environment of `client()`. */
export const LIMITS_KEY = '/config/dev/orders/limits';
export const LIMITS = defineConfig({ key: '/config/{env}/{service}/limits', schema: limits });

/** Limits that are opened by a client of their own, and what is told of them, in order. */
export async function opened(finish: Finish, url: string, more: Parameters<typeof client>[2] = {}) {
  const coord = await client(finish, url, more);
  const ref = await coord.config.open(LIMITS);
  const told: unknown[] = [];
  ref.on('change', ({ max }) => told.push(max)).on('rejected', () => told.push('rejected'));
  for (const event of ['stale', 'fresh', 'reset'] as const) ref.on(event, () => told.push(event));
  return { coord, ref, told };
}
