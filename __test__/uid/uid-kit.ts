// What the tests of ids share.
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type CoordUidOptions, createUid, type Layout, type Uid } from 'rollcall/uid';
import { expect, vi } from 'vitest';
import { client, type Finish } from '../coord/kit.js';
import { type EtcdCluster, type EtcdOptions, startEtcd } from '../support/etcd.js';
import { ordered, type Script, temporaryFolder } from '../support/process.js';

export const SERVICE = 'orders';
export const ROOT = `/im-infra/allocators/${SERVICE}`;

/** A layout of so many worker bits. */
export const layoutOf = (workerBits: number): Layout => ({ timeBits: 51 - workerBits, workerBits, seqBits: 12 });

export async function begin({ onTestFinished }: Finish, options: EtcdOptions = {}): Promise<EtcdCluster> {
  const server = await startEtcd(options);
  onTestFinished(() => server.close());
  return server;
}

/** Ids of a client of their own. */
export async function made(finish: Finish, url: string, more: Partial<CoordUidOptions> = {}): Promise<Uid> {
  const coord = await client(finish, url);
  return await createUid({ coord, service: SERVICE, logger: false, ...more });
}

export interface Line {
  readonly at: number;
  readonly event: 'refused' | 'has' | 'moved' | 'away' | 'done';
  readonly code?: string;
  readonly worker?: number;
  readonly until?: number;
  readonly made?: number;
}

export interface Order {
  readonly url: string;
  readonly file: string;
  readonly most: number;
  readonly layout: Layout;
  readonly windowMs: number;
  readonly ttlMs: number;
  readonly back?: number;
  readonly pauseMs?: number;
}

const program = fileURLToPath(new URL('./fixtures/maker.mjs', import.meta.url));

/** A process of its own that makes ids. */
export const maker = (finish: Finish, order: Order): Script<Line> => ordered<Line>(finish, program, order);

/** A folder for the files of makers. */
export function files({ onTestFinished }: Finish): (name: string) => string {
  const folder = temporaryFolder();
  onTestFinished(() => folder.remove());
  return (name) => join(folder.path, name);
}

interface Run {
  readonly first: bigint;
  readonly count: bigint;
  readonly file: string;
}

/** What makers have written; the last run of one that was killed may be half there, and was never used. */
export function runsOf(file: string): Run[] {
  if (!existsSync(file)) return [];
  const bytes = readFileSync(file);
  const words = new BigInt64Array(new Uint8Array(bytes.subarray(0, bytes.length - (bytes.length % 16))).buffer);
  return Array.from({ length: words.length / 2 }, (_, i) => ({
    first: words[2 * i] as bigint,
    count: words[2 * i + 1] as bigint,
    file,
  }));
}

export const counted = (runs: readonly Run[]): number => Number(runs.reduce((sum, { count }) => sum + count, 0n));

/** How many ids were made twice: of runs in order, each begins after the end of the one before it. */
export function duplicates(runs: readonly Run[]): number {
  const sorted = [...runs].sort((a, b) => (a.first < b.first ? -1 : 1));
  let end = -1n;
  let twice = 0n;
  for (const { first, count } of sorted) {
    const last = first + count - 1n;
    if (first <= end) twice += (last < end ? last : end) - first + 1n;
    if (last > end) end = last;
  }
  return Number(twice);
}

/** A clock of this process that can be set; it runs on otherwise. */
export function settable({ onTestFinished }: Finish): { by(ms: number): void; at(ms: number): void } {
  const real = Date.now;
  const spy = vi.spyOn(Date, 'now');
  onTestFinished(() => spy.mockRestore());
  return {
    by: (ms) => void spy.mockImplementation(() => real() + ms),
    at: (ms) => void spy.mockImplementation(() => ms),
  };
}

/** All ids are greater than the one before. */
export function expectGrowing(ids: Iterable<bigint>): void {
  let before = -1n;
  for (const id of ids) {
    if (id <= before) expect(id).toBeGreaterThan(before);
    before = id;
  }
}
