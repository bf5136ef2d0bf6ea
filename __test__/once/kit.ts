// What the tests of once share: stores of every kind, and processes that do things once.
import { fileURLToPath } from 'node:url';
import type { Coord } from 'rollcall/coord';
import { coordOnce, createOnce, memoryOnce, type Once, type OnceOptions, redisOnce } from 'rollcall/once';
import { afterAll, beforeAll } from 'vitest';
import { client, type Finish } from '../coord/kit.js';
import { startEtcd } from '../support/etcd.js';
import { ordered, type Script, uniqueName } from '../support/process.js';
import { type RedisLibrary, redisClient, startRedis } from '../support/redis.js';

export type Store = OnceOptions['store'];
export type Library = RedisLibrary | 'coord';

/** A server whose stores can be had again and again. */
export interface Place {
  readonly library: Library;
  readonly url: string;
  freeze(): void;
  thaw(): void;
  kill(): Promise<void>;
  start(): Promise<void>;
  /** Loses all its data. */
  wipe(): Promise<void>;
  close(): Promise<void>;
}

async function redis(library: RedisLibrary): Promise<Place> {
  const server = await startRedis();
  return Object.assign(server, { library, close: async () => server[Symbol.asyncDispose]() });
}

const etcd = async (): Promise<Place> => Object.assign(await startEtcd(), { library: 'coord' as const });

/** Those that processes share. */
export const SHARED = [
  ['Redis by ioredis', () => redis('ioredis')],
  ['Redis by node-redis', () => redis('node-redis')],
  ['etcd', etcd],
] as const;

/** The server of the tests of a `describe()`. */
export function placed(start: () => Promise<Place>): () => Place {
  let there: Place | undefined;
  beforeAll(async () => {
    there = await start();
  });
  afterAll(() => there?.close());
  return () => there as Place;
}

/** A store on a server, with a client of its own. */
export async function storeOn(
  finish: Finish,
  { library, url }: Pick<Place, 'library' | 'url'>,
  storeTimeoutMs?: number,
): Promise<Store> {
  if (library !== 'coord') return redisOnce(await redisClient(finish, library, url), { storeTimeoutMs });
  const coord: Coord = await client(finish, url, { lazy: true });
  return coordOnce(coord, { storeTimeoutMs });
}

/** Passed by all once it is open. */
export function gate(): { open(): void; passed: Promise<void> } {
  let open = () => {};
  const passed = new Promise<void>((resolve) => {
    open = resolve;
  });
  return { open, passed };
}

/** One that is closed with its test. */
export function onceOf({ onTestFinished }: Finish, store: Store, more: Partial<OnceOptions> = {}): Once {
  const once = createOnce({ store, logger: false, ...more });
  onTestFinished(() => once.close());
  return once;
}

/** Every kind of store, for a test of its own. */
export const STORES: readonly (readonly [string, (finish: Finish, place: Map<string, Place>) => Promise<Store>])[] = [
  ['memory', async () => memoryOnce()],
  ['coord on memory', async (finish) => storeOn(finish, { library: 'coord', url: `memory://${uniqueName('once')}` })],
  ...SHARED.map(
    ([name]) =>
      [name, (finish: Finish, places: Map<string, Place>) => storeOn(finish, places.get(name) as Place)] as const,
  ),
];

export interface Line {
  readonly event: 'ready' | 'runs' | 'lost' | 'done' | 'failed';
  /** By the clock of the machine, in milliseconds. */
  readonly at: number;
  readonly key: string;
  readonly token?: string;
  readonly attempt?: number;
  readonly how?: string;
  readonly value?: unknown;
  readonly code?: string;
  readonly outcomeUnknown?: boolean;
}

/** What a process is told to do, by a line. */
export interface Order {
  readonly key: string;
  /** 600,000. */
  readonly ttlMs?: number;
  /** How many callers there are at once; 1. */
  readonly callers?: number;
  /** How long the function takes. */
  readonly takesMs?: number;
  readonly options?: object;
  /** A file that each run adds a line to: the effect. */
  readonly effects?: string;
}

const program = fileURLToPath(new URL('./fixtures/doer.mjs', import.meta.url));

/** A process that does things once, by orders. */
export async function doer(
  finish: Finish,
  { library, url }: Pick<Place, 'library' | 'url'>,
  aheadMs = 0,
): Promise<Script<Line>> {
  const script = ordered<Line>(finish, program, { library, url, aheadMs });
  await script.line(({ event }) => event === 'ready');
  return script;
}
