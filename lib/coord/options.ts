/** What a client of coord is told of itself, checked. */

import type { SharedClient } from '../common/lending.js';
import { boolean, integer, invalid, record, text } from '../common/shape.js';
import type { CommonOptions } from '../registry/common-options.js';
import type { Registry } from '../registry/registry.js';
import { partOf } from './keys.js';

/** Who this process is, and what of it is coord's own. */
export interface CoordIdentity {
  /** What `{env}` stands for in keys, such as `prod`. Default: none, and such keys are refused. */
  env?: string | undefined;
  /** What `{service}` stands for, such as `orders`. Default: none. */
  service?: string | undefined;
  /** What `{instance}` stands for, and whose layer `@instance=…` is. Default: none. */
  instance?: string | undefined;
  /**
   * The labels of this process, such as `{ canary: 'true' }`: for each, the layer `@canary=true` of a configuration is its own.
   * Neither names nor values have a `/`; `instance` is taken. Default: none.
   */
  labels?: Readonly<Record<string, string>> | undefined;
  /**
   * Changes of the store that come within so many milliseconds of each other are told as one, after twenty times as long at
   * the latest. Default 50, at most 1000; 0 tells each.
   */
  settleMs?: number | undefined;
  /**
   * A folder for last-known-good files: what `open()` has accepted last of each configuration is kept there (mode 0600), and is what
   * a program starts with when the store can't be reached. One folder for each store; it is made if it is not there.
   * `connectCoord()` is then `lazy` unless told otherwise. Default false: nothing is written.
   */
  cacheDir?: string | false | undefined;
  /**
   * How many versions of a key are kept, below `/config-history`, by who changes it with `set()`, `setAll()`, `delete()` or `rollback()`;
   * 2 MiB of each key at the most. Default 50, at most 1000; 0 keeps none, and no change reads before it writes.
   */
  history?: number | undefined;
  /**
   * Whether this instance reports which revision of each configuration it has applied, for `applied()`; it needs `service` and
   * `instance`, and writes one key of the store, after each change and every ten minutes. Default false.
   */
  reportApplied?: boolean | undefined;
}

/** Which store, by one of `url`, `registry` and `etcd`, and who this process is. */
export interface CoordOptions extends CommonOptions, CoordIdentity {
  /** As `connect()` of `rollcall` takes it, such as `etcd://10.0.0.1:2379`. */
  url?: string | URL | undefined;
  /** A registry client that is there: its connection is shared, and it stays open at the end. */
  registry?: Registry | undefined;
  /** An `Etcd3` of `rollcall/etcd` that is there: its connection is shared, and it stays open at the end. */
  etcd?: SharedClient | undefined;
}

/** Who a client is, checked. */
export interface Identity {
  readonly env: string | undefined;
  readonly service: string | undefined;
  readonly instance: string | undefined;
  readonly labels: Readonly<Record<string, string>>;
  readonly settleMs: number;
  readonly cacheDir: string | undefined;
  readonly history: number;
  readonly reportApplied: boolean;
}

/** The options that are coord's own; all others are those of `connect()`. */
export const OWN = [
  'env',
  'service',
  'instance',
  'labels',
  'settleMs',
  'cacheDir',
  'history',
  'reportApplied',
] as const;

type Bag = Readonly<Record<string, unknown>>;

export function identityOf(options: Bag): Identity {
  const part = (name: 'env' | 'service' | 'instance') =>
    options[name] === undefined ? undefined : partOf(`options.${name}`, options[name]);
  return Object.freeze({
    env: part('env'),
    service: part('service'),
    instance: part('instance'),
    labels: labelsOf(options.labels),
    settleMs: integer('options.settleMs', options.settleMs, 50, { min: 0, max: 1000 }),
    cacheDir: options.cacheDir === false ? undefined : text('options.cacheDir', options.cacheDir),
    history: integer('options.history', options.history, 50, { min: 0, max: 1000 }),
    reportApplied: boolean('options.reportApplied', options.reportApplied, false),
  });
}

function labelsOf(value: unknown): Readonly<Record<string, string>> {
  if (value === undefined) return Object.freeze({});
  const labels: Record<string, string> = {};
  for (const [name, label] of Object.entries(record('options.labels', value))) {
    const path = `options.labels[${JSON.stringify(name)}]`;
    partOf(path, name);
    if (name.includes('=')) throw invalid(path, 'expected a name without "="');
    if (name === 'instance')
      throw invalid(path, 'expected another name: the layer of an instance is that of options.instance');
    labels[name] = partOf(path, label);
  }
  return Object.freeze(labels);
}
