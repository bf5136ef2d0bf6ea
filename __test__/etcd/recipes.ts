// What the tests of elections and locks share.

import { fileURLToPath } from 'node:url';
import { Etcd3, type IOptions } from 'rollcall/etcd';
import type { TestContext } from 'vitest';
import { expect } from 'vitest';
import { type EtcdCluster, type EtcdOptions, startEtcd } from '../support/etcd.js';
import { ordered, runProgram, type Script, waitFor } from '../support/process.js';
import { builtProgram, installedProgram } from '../support/programs.js';

export type Finish = Pick<TestContext, 'onTestFinished'>;

/** A client that is closed when the test is over. */
export function connect({ onTestFinished }: Finish, hosts: readonly string[], options: Partial<IOptions> = {}): Etcd3 {
  const client = new Etcd3({ hosts: [...hosts], ...options });
  onTestFinished(() => client.close());
  return client;
}

export interface Line {
  /** By the clock of the machine, in milliseconds. */
  at: number;
  event: 'elected' | 'error' | 'lost' | 'acts' | 'stops' | 'woke' | 'blocked' | 'wrote' | 'resigned';
  name?: string;
  message?: string;
  revision?: string;
  acts?: boolean;
  succeeded?: boolean;
}

export interface Order {
  hosts: readonly string[];
  name: string;
  ttl: number;
  mode: 'campaign' | 'retry' | 'mutex';
  retryMs?: number;
  options?: object;
}

const program = fileURLToPath(new URL('./fixtures/candidate.mjs', import.meta.url));

/** A process of its own that campaigns or holds a lock. */
export const candidate = (finish: Finish, order: Order): Script<Line> => ordered<Line>(finish, program, order);

export interface Interval {
  who: string;
  from: number;
  to: number;
  revision: bigint;
}

/** When a process said by `isLeader` or `isHeld` that it may act. */
export function intervals(who: string, lines: readonly Line[], now = Date.now()): Interval[] {
  const found: Interval[] = [];
  for (const { event, at, revision } of lines) {
    if (event === 'acts') found.push({ who, from: at, to: now, revision: BigInt(revision as string) });
    else if (event === 'stops') (found.at(-1) as Interval).to = at;
  }
  return found;
}

/**
 * Nobody acts before the one before has stopped, and tokens grow. Of a process that says when it stops a few milliseconds
 * later than it does, `slackMs` are forgiven.
 */
export function expectOneAtATime(all: readonly Interval[], slackMs = 40): void {
  const sorted = [...all].sort((a, b) => a.from - b.from);
  for (const [i, next] of sorted.entries()) {
    const before = sorted[i - 1];
    if (!before) continue;
    expect(next.from, `${next.who} begins after ${before.who} has stopped`).toBeGreaterThanOrEqual(before.to - slackMs);
    expect(next.revision, 'tokens grow').toBeGreaterThan(before.revision);
  }
}

/** When a campaign of this process says that it leads, looked at every few milliseconds. */
export function sampled(
  { onTestFinished }: Finish,
  who: string,
  campaign: { isLeader: boolean; revision?: bigint },
): Interval[] {
  const found: Interval[] = [];
  let acted = false;
  const timer = setInterval(() => {
    const acts = campaign.isLeader;
    const now = Date.now();
    if (acts && !acted) found.push({ who, from: now, to: now, revision: campaign.revision as bigint });
    if (acts) (found.at(-1) as Interval).to = now;
    acted = acts;
  }, 2);
  onTestFinished(() => clearInterval(timer));
  return found;
}

/** A server or cluster of its own. */
export async function server({ onTestFinished }: Finish, options: EtcdOptions): Promise<EtcdCluster> {
  const etcd = await startEtcd(options);
  onTestFinished(() => etcd.close());
  return etcd;
}

/** The candidates' keys, whatever the order. */
export const candidates = (etcd: EtcdCluster, name: string): Promise<string[]> => etcd.keys(`election/${name}/`);

export const gone = (etcd: EtcdCluster, prefix: string): Promise<boolean> =>
  waitFor(async () => (await etcd.keys(prefix)).length === 0, { what: `no key at ${prefix}` });

/** Blocks the thread. */
export function block(ms: number): void {
  const until = Date.now() + ms;
  while (Date.now() < until);
}

/** etcdctl of the server's version, running until the test is over. */
export function etcdctl({ onTestFinished }: Finish, etcd: EtcdCluster, ...args: string[]): Script {
  const program =
    etcd.version === '3.7.3' ? builtProgram('etcdctl') : installedProgram('/usr/bin/etcdctl', 'etcd-client');
  const ctl = runProgram(program, ['--endpoints', etcd.hosts.join(','), ...args], { ETCDCTL_API: '3' });
  onTestFinished(() => ctl.kill('SIGKILL'));
  return ctl;
}
