/** The policies of a channel that pick by the strategies of `registry.service()`: `rollcall_p2c` and its like. */

import { now, turn } from '../common/clock.js';
import { isRecord } from '../common/shape.js';
import { NoInstanceError } from '../errors.js';
import type { ServiceCache } from '../service/cache.js';
import type { Endpoint } from '../service/endpoint.js';
import { consistentHash, leastLoaded, roundRobin, weighted } from '../service/pick/index.js';
import type { Candidate, Filter, Strategy } from '../service/pick/types.js';
import type { Picked } from '../service/ticket.js';
import {
  ATTRIBUTE_PREFIX,
  type Grpc,
  type GrpcEndpoint,
  type GrpcPicker,
  type Leaf,
  type PickArgs,
  type PickResult,
  type Policy,
  type PolicyHost,
  type State,
} from './compat.js';
import { placeOf, placeOfEndpoint } from './endpoints.js';

/** Under which the resolver hands its service to the policy. */
export const SERVICE_ATTRIBUTE = `${ATTRIBUTE_PREFIX}rollcall.service`;

/** What a policy needs of the service that the resolver has found. */
export interface ChannelService {
  readonly name: string;
  /** A cache that gives only those that `ready` lets through, and calls of this channel alone. */
  open(ready: Filter, strategy: Strategy): ServiceCache;
  /** Why the last list that was pushed is empty. */
  readonly problem: string;
}

/** The policies by name: the strategy of each, and the header of the key where one decides. */
interface Chosen {
  readonly strategy: Strategy;
  readonly header?: string;
}

const POLICIES: Readonly<Record<string, (config: Record<string, unknown>) => Chosen>> = {
  rollcall_p2c: (config) => ({ strategy: leastLoaded(config) }),
  rollcall_weighted: () => ({ strategy: weighted() }),
  rollcall_round_robin: () => ({ strategy: roundRobin() }),
  rollcall_hash: ({ header, ...config }) => {
    if (typeof header !== 'string' || header === '') throw new Error('rollcall_hash: header: expected the name of one');
    return { strategy: consistentHash(config), header };
  },
};

/** Makes the policies known to a copy of grpc-js. */
export function registerPolicies(grpc: Grpc): void {
  for (const [name, chosen] of Object.entries(POLICIES)) {
    grpc.registerPolicy(
      name,
      (json) => chosen(isRecord(json) ? json : {}),
      (host, config) => new ServicePolicy(name, host, config),
    );
  }
}

/** The connection to one address. */
interface Connection {
  readonly serverName: string | undefined;
  leaf: Leaf | undefined;
  state: State;
}

/** A stream may live for days: what took longer than this tells nothing of how fast its instance is. */
const LONGEST_LATENCY_MS = 30_000;
/** Of a call that came to nothing, or that says nothing: it counts for nothing. */
const NOTHING = Object.freeze({ error: Object.freeze({ name: 'AbortError' }) });

/**
 * Keeps one connection to each address, and lets a cache of the service pick among those that are ready. What is known of the
 * instances, who is set aside and whose turn it is live there: they outlast lists, pickers and channels.
 */
class ServicePolicy implements Policy, GrpcPicker {
  readonly #name: string;
  readonly #host: PolicyHost;
  readonly #config: Chosen;
  readonly #connections = new Map<string, Connection>();
  readonly #counts: Record<State, number> = { idle: 0, connecting: 0, ready: 0, failed: 0 };
  /** Of the endpoints of candidates: found anew whenever the cache filters. */
  readonly #connectionOf = new WeakMap<Endpoint, Connection>();
  #service: ChannelService | undefined;
  #cache: ServiceCache | undefined;
  #isPaused = false;
  #problem = '';
  /** Picks of this turn of the loop: some never become a call, and nobody tells. */
  #begun: Attempt[] = [];

  constructor(name: string, host: PolicyHost, config: Chosen) {
    this.#name = name;
    this.#host = host;
    this.#config = config;
  }

  update(endpoints: readonly GrpcEndpoint[], attributes: Readonly<Record<string, unknown>>): void {
    const service = attributes[SERVICE_ATTRIBUTE] as ChannelService | undefined;
    if (!service) {
      this.failed(`${this.#name} picks from a service of rollcall: dial discovery:///name`);
      return;
    }
    if (service !== this.#service) {
      this.#cache?.release();
      try {
        this.#cache = service.open(this.#ready, this.#config.strategy);
      } catch (error) {
        this.failed((error as Error).message); // the registry was closed while the channel was idle
        return;
      }
      this.#service = service;
    }
    this.#isPaused = true;
    const left = new Set(this.#connections.keys());
    for (const endpoint of endpoints) {
      const place = placeOfEndpoint(endpoint);
      left.delete(place);
      const known = this.#connections.get(place);
      if (known && known.serverName === endpoint.serverName) continue;
      if (known) this.#drop(place, known);
      this.#connect(place, endpoint);
    }
    // A connection goes when its last call has ended.
    for (const place of left) this.#drop(place, this.#connections.get(place) as Connection);
    this.#isPaused = false;
    this.#report();
  }

  failed(details: string): void {
    if (this.#connections.size > 0) return; // what is known is better
    this.#problem = details;
    this.#host.report('failed', { pick: () => this.#host.unavailable(details) }, details);
  }

  destroy(): void {
    for (const [place, connection] of [...this.#connections]) this.#drop(place, connection);
    this.#cache?.release();
    this.#cache = undefined;
    this.#service = undefined;
  }

  pick(args: PickArgs): PickResult {
    const cache = this.#cache;
    if (!cache) return this.#host.queue;
    let picked: Picked;
    try {
      const { header } = this.#config;
      picked = header === undefined ? cache.pick() : cache.pick({ key: keyOf(args, header) });
    } catch (error) {
      // The list is ahead of the connections: a report follows.
      if (error instanceof NoInstanceError) return this.#host.queue;
      return this.#host.unavailable((error as Error).message);
    }
    const result = this.#connectionOf.get(picked.endpoint)?.leaf?.pick(args) ?? this.#host.queue;
    if (!this.#host.isComplete(result)) {
      picked.done(NOTHING);
      return result;
    }
    const attempt = new Attempt(cache, picked);
    if (this.#begun.push(attempt) === 1) void turn().then(this.#sweep);
    return {
      ...result,
      onCallStarted: () => {
        attempt.started();
        result.onCallStarted?.();
      },
      onCallEnded: (code, ...more) => {
        attempt.ended(code);
        result.onCallEnded?.(code, ...more);
      },
    };
  }

  /** Lets through those whose connection is ready. Live: it runs anew when the cache is told of a change. */
  readonly #ready: Filter = Object.assign(
    (candidates: readonly Candidate[]) =>
      candidates.filter(({ endpoint }) => {
        const connection = this.#connections.get(placeOf(endpoint));
        if (connection?.state !== 'ready') return false;
        this.#connectionOf.set(endpoint, connection);
        return true;
      }),
    { live: true },
  );

  /** Those that have become no call in their turn of the loop are none, until they say otherwise. */
  readonly #sweep = (): void => {
    const begun = this.#begun;
    this.#begun = [];
    for (const attempt of begun) attempt.sweep();
  };

  #connect(place: string, endpoint: GrpcEndpoint): void {
    const connection: Connection = { serverName: endpoint.serverName, leaf: undefined, state: 'idle' };
    this.#connections.set(place, connection);
    this.#counts.idle++;
    connection.leaf = this.#host.connect(endpoint, () => this.#changed(place, connection));
    this.#changed(place, connection);
  }

  #drop(place: string, connection: Connection): void {
    this.#connections.delete(place);
    this.#counts[connection.state]--;
    connection.leaf?.destroy();
    this.#cache?.refilter();
  }

  #changed(place: string, connection: Connection): void {
    const { leaf } = connection;
    if (!leaf || this.#connections.get(place) !== connection) return; // it is not made yet, or is gone
    const { state } = leaf;
    if (state !== connection.state) {
      this.#counts[connection.state]--;
      this.#counts[state]++;
      connection.state = state;
      this.#cache?.refilter();
    }
    if (state === 'failed') this.#problem = problemOf(leaf);
    if (state === 'idle') leaf.exitIdle(); // which may change it at once
    if (!this.#isPaused) this.#report();
  }

  #report(): void {
    const { ready, connecting, idle } = this.#counts;
    const { queue, unavailable } = this.#host;
    if (ready > 0) this.#host.report('ready', this);
    else if (connecting + idle > 0) this.#host.report('connecting', { pick: () => queue });
    else {
      const empty = this.#connections.size === 0;
      const problem = empty
        ? (this.#service?.problem ?? '')
        : `no connection to any instance of ${this.#service?.name}: ${this.#problem}`;
      this.#host.report('failed', { pick: () => unavailable(problem) }, problem);
    }
  }
}

/** One attempt of a call on one instance. */
class Attempt {
  readonly #cache: ServiceCache;
  #picked: Picked;
  readonly #since = now();
  #isStarted = false;
  #isSwept = false;

  constructor(cache: ServiceCache, picked: Picked) {
    this.#cache = cache;
    this.#picked = picked;
  }

  sweep(): void {
    if (this.#isStarted) return;
    this.#isSwept = true;
    this.#picked.done(NOTHING);
  }

  /** Late where the credentials of the call took their time: it counts from now. */
  started(): void {
    this.#isStarted = true;
    if (this.#isSwept) this.#picked = this.#cache.again(this.#picked) ?? this.#picked;
  }

  /** The caller's own cancelling, and some ends of a connection, come as CANCELLED: they count for nothing. */
  ended(code: number): void {
    if (code === 0) this.#picked.done(now() - this.#since > LONGEST_LATENCY_MS ? NOTHING : undefined);
    else this.#picked.done({ error: { code } });
  }
}

/** Calls without a key go anywhere. */
function keyOf({ metadata }: PickArgs, header: string): string {
  const [value] = metadata.get(header);
  return value === undefined ? String(Math.random()) : String(value);
}

/** Why a connection failed, in the words of the picker that fails its calls. */
function problemOf(leaf: Leaf): string {
  const { status } = leaf.pick({ metadata: { get: () => [] } }) as { status?: { details?: unknown } | null };
  return typeof status?.details === 'string' ? status.details : 'unknown';
}
