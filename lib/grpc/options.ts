/** The options of `registerResolver()` and `grpcClient()`, checked and completed. */

import { choice, integer, invalid, kindOf, onlyKnown, optional, text } from '../common/shape.js';
import type { Registry } from '../registry/registry.js';
import { checkOptions, type ServiceOptions, within } from '../service/options.js';
import { type SubsetOptions, subset } from '../service/pick/subset.js';
import type { Filter } from '../service/pick/types.js';
import type { GrpcModule } from './compat.js';

/** Which policy picks an instance for each call, where the channel's own service config names none. */
export type GrpcPolicy =
  /** Of two by chance the one with less to do: `leastLoaded()`. */
  | 'rollcall_p2c'
  /** Each as often as its weight says: `weighted()`. */
  | 'rollcall_weighted'
  /** One after the other: `roundRobin()`. */
  | 'rollcall_round_robin'
  /** The same header, the same instance: `consistentHash()`. Needs `hashHeader`. */
  | 'rollcall_hash'
  /** Of grpc-js itself. Nobody is set aside. */
  | 'round_robin';

const POLICIES: readonly GrpcPolicy[] = [
  'rollcall_p2c',
  'rollcall_weighted',
  'rollcall_round_robin',
  'rollcall_hash',
  'round_robin',
];

/** How a channel finds the instances of a service and picks among them. The rest is as for `registry.service()`. */
export interface GrpcOptions
  extends Pick<ServiceOptions, 'filters' | 'zone' | 'subset' | 'outlier' | 'warmUpMs' | 'lingerMs' | 'allowLocal'> {
  /** Default `rollcall_p2c`; `round_robin` in a grpc-js before 1.10, which knows no other. */
  policy?: GrpcPolicy | undefined;
  /** Of `rollcall_hash`: the header of a call that decides. A call without it goes anywhere. */
  hashHeader?: string | undefined;
  /**
   * For how long a call without a deadline waits for the first list, in milliseconds: then calls fail with UNAVAILABLE, which
   * says why, until a list comes. Those that wait for ready go on waiting. Default 10,000.
   */
  firstListTimeoutMs?: number | undefined;
}

/** Options of `registerResolver()`. */
export interface ResolverOptions extends GrpcOptions {
  /** Which registry: `discovery://eu/orders` asks the one of `eu`. Default: empty, for `discovery:///orders`. */
  authority?: string | undefined;
  /**
   * The copies of `@grpc/grpc-js` that are to know it. Default: the one that the program would load, and the one that this
   * package would. A framework may bring one more.
   */
  grpc?: GrpcModule | readonly GrpcModule[] | undefined;
}

/** Of one registry, complete. */
export interface GrpcSettings {
  /** What is asked of `registry.service()`: without scheme and strategy, which are the channel's. */
  readonly service: ServiceOptions;
  readonly zone: ServiceOptions['zone'];
  readonly policies: readonly Record<string, unknown>[];
  readonly firstListTimeoutMs: number;
}

const SERVICE = ['filters', 'zone', 'subset', 'outlier', 'warmUpMs', 'lingerMs', 'allowLocal'] as const;
const OWN = ['policy', 'hashHeader', 'firstListTimeoutMs'];

/** Checks them all; `more` are those that others check. */
export function grpcSettings(options: unknown, more: readonly string[]): GrpcSettings {
  const given = optional('options', options);
  onlyKnown('options', given, [...SERVICE, ...OWN, ...more]);
  const asked = Object.fromEntries(SERVICE.map((key) => [key, given[key]]));
  const ownKey = String(Math.random());
  checkOptions(asked, () => ownKey);
  const { zone, subset: few, filters, ...shared } = asked as ServiceOptions;
  // Before those that are ready are chosen: else they would decide who is connected to.
  const all: Filter[] = [...(filters ?? [])];
  if (few !== undefined) all.push(within('options.', () => subset(few as SubsetOptions, () => ownKey)));
  return Object.freeze({
    service: { ...shared, filters: all },
    zone,
    policies: policies(given),
    firstListTimeoutMs: integer('options.firstListTimeoutMs', given.firstListTimeoutMs, 10_000, { min: 1 }),
  });
}

function policies(given: Record<string, unknown>): Record<string, unknown>[] {
  const policy = choice('options.policy', given.policy, POLICIES, 'rollcall_p2c');
  const header = text('options.hashHeader', given.hashHeader);
  if (policy === 'rollcall_hash' && header === undefined) {
    throw invalid('options.hashHeader', 'expected the name of a header: rollcall_hash goes by it');
  }
  if (policy !== 'rollcall_hash' && header !== undefined) {
    throw invalid('options.hashHeader', 'it is for the policy "rollcall_hash" alone');
  }
  if (policy === 'round_robin') return [{ round_robin: {} }];
  // A copy of grpc-js that does not know the first takes the next.
  return [{ [policy]: header === undefined ? {} : { header } }, { round_robin: {} }];
}

/** Where a registry answers: a part of a URL. */
export function authorityOf(value: unknown): string {
  if (value === undefined || value === '') return '';
  const authority = text('options.authority', value) as string;
  if (/^[\w.~:-]+$/.test(authority)) return authority;
  throw invalid('options.authority', 'expected letters, digits, ".", "-", "_", "~" and ":" alone, such as "eu"');
}

/** By shape: one of another realm or copy of this package will do. */
export function registryOf(value: unknown): Registry {
  const registry = value as Partial<Registry> | null | undefined;
  if (typeof registry?.service === 'function' && typeof registry.watch === 'function') return registry as Registry;
  throw invalid('registry', `expected what connect() gives, got ${kindOf(value)}`);
}
