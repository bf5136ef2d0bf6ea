/**
 * `@grpc/grpc-js` as the other files of this folder see it. Its interface of resolvers and of policies has four shapes from
 * 1.10 to 1.14, and one before, without policies of one's own; this is the only file that knows them, and it tells them apart by what is there.
 */

/** A copy of `@grpc/grpc-js`, such as `import * as grpc from '@grpc/grpc-js'`. */
export interface GrpcModule {
  readonly experimental: object;
  readonly status: object;
  readonly connectivityState: object;
  readonly credentials: object;
  readonly Client: abstract new (...args: never[]) => object;
  readonly Metadata: new () => object;
}

/** What a channel is asked to call, taken apart: `discovery://authority/path`. */
export interface Target {
  readonly scheme?: string;
  readonly authority?: string;
  readonly path: string;
}

export type Address = { readonly host: string; readonly port: number } | { readonly path: string };

/** One place to connect to. Built-in policies look at `addresses` alone. */
export interface GrpcEndpoint {
  readonly addresses: readonly Address[];
  /** The name that its certificate must carry, in the place of the channel's. */
  readonly serverName?: string | undefined;
}

/** What a channel makes of the connections of one endpoint, or of all. */
export type State = 'idle' | 'connecting' | 'ready' | 'failed';

/** A service config in the form in which a resolver hands it over. */
export type ServiceConfig = Record<string, unknown>;

export interface PickArgs {
  readonly metadata: { get(key: string): readonly (string | Buffer)[] };
}

export interface PickResult {
  readonly pickResultType: number;
  readonly onCallStarted?: (() => void) | null;
  readonly onCallEnded?: ((code: number, ...more: unknown[]) => void) | null;
}

export interface GrpcPicker {
  pick(args: PickArgs): PickResult;
}

/** A resolver of one channel. */
export interface ChannelResolver {
  /** The channel wants to know; may come at any time, and often, and again after `destroy()`. */
  updateResolution(): void;
  destroy(): void;
}

/** Hands to a channel what was found. */
export interface Push {
  /** `null` for the config: that of the channel's own options. */
  list(endpoints: readonly GrpcEndpoint[], config: ServiceConfig | null, attributes: object): void;
  error(details: string, config: ServiceConfig | null): void;
}

/** A policy at work in one channel. */
export interface Policy {
  update(endpoints: readonly GrpcEndpoint[], attributes: Readonly<Record<string, unknown>>): void;
  /** The resolver failed. */
  failed(details: string): void;
  destroy(): void;
}

/** The connection to one endpoint, kept by a `pick_first` of its own. */
export interface Leaf {
  readonly state: State;
  pick(args: PickArgs): PickResult;
  exitIdle(): void;
  destroy(): void;
}

/** What a policy may do. */
export interface PolicyHost {
  /** `changed` is called at each change of its state, also before this returns. */
  connect(endpoint: GrpcEndpoint, changed: () => void): Leaf;
  report(state: State, picker: GrpcPicker, problem?: string): void;
  /** Lets a call wait until the next report. */
  readonly queue: PickResult;
  /** Fails a call, unless it waits for ready. */
  unavailable(details: string): PickResult;
  /** Whether a pick led to a connection. */
  isComplete(result: PickResult): boolean;
}

type Status = { code: number; details: string; metadata: object };
type StatusOr<T> = { ok: true; value: T } | { ok: false; error: Status };
type AnyPicker = { pick(args: unknown): PickResult & { status?: { details?: string } | null } };

interface Helper {
  createSubchannel(address: unknown, args: object, ...more: unknown[]): unknown;
  updateState(state: number, picker: unknown, problem: string | null): void;
}

interface RawLeaf {
  startConnecting(): void;
  getConnectivityState(): number;
  getPicker(): AnyPicker;
  exitIdle(): void;
  destroy(): void;
}

interface Experimental {
  registerResolver(scheme: string, type: unknown): void;
  registerLoadBalancerType?(name: string, type: unknown, config: unknown): void;
  createChildChannelControlHelper?(parent: Helper, overrides: object): Helper;
  LeafLoadBalancer?: new (endpoint: GrpcEndpoint, helper: Helper, ...rest: unknown[]) => RawLeaf;
  PickResultType?: { COMPLETE: number; QUEUE: number; TRANSIENT_FAILURE: number };
  endpointToString?: unknown;
  validateLoadBalancingConfig?(config: unknown): unknown;
  statusOrFromValue?<T>(value: T): StatusOr<T>;
  statusOrFromError?(status: Status): StatusOr<never>;
}

type ObjectListener = {
  onSuccessfulResolution(
    endpoints: readonly GrpcEndpoint[] | readonly Address[],
    config: ServiceConfig | null,
    configError: null,
    selector: null,
    attributes: object,
  ): void;
  onError(status: Status): void;
};
type Listener =
  | ObjectListener
  | ((list: StatusOr<unknown>, attributes: object, config: StatusOr<ServiceConfig> | null, note: string) => boolean);

/** From 1.13 on any other attribute would be a part of what makes a connection: each change of it would open a new one. */
export const ATTRIBUTE_PREFIX = 'grpc.internal.no_subchannel.';

/** One copy of grpc-js. */
export class Grpc {
  readonly module: GrpcModule;
  readonly #experimental: Experimental;
  readonly #unavailable: number;
  readonly #states: ReadonlyMap<number, State>;
  readonly #numbers: Readonly<Record<State, number>>;

  constructor(module: GrpcModule) {
    this.module = module;
    this.#experimental = module.experimental as Experimental;
    this.#unavailable = (module.status as { UNAVAILABLE: number }).UNAVAILABLE;
    const states = module.connectivityState as Record<'IDLE' | 'CONNECTING' | 'READY' | 'TRANSIENT_FAILURE', number>;
    this.#numbers = {
      idle: states.IDLE,
      connecting: states.CONNECTING,
      ready: states.READY,
      failed: states.TRANSIENT_FAILURE,
    };
    this.#states = new Map(Object.entries(this.#numbers).map(([state, number]) => [number, state as State]));
  }

  /** Whether policies of one's own can be made: from 1.10 on. */
  get takesPolicies(): boolean {
    const { registerLoadBalancerType, createChildChannelControlHelper, LeafLoadBalancer, PickResultType } =
      this.#experimental;
    return !!(registerLoadBalancerType && createChildChannelControlHelper && LeafLoadBalancer && PickResultType);
  }

  registerResolver(
    scheme: string,
    authority: (target: Target) => string,
    make: (target: Target, push: Push, channelOptions: Readonly<Record<string, unknown>>) => ChannelResolver,
  ): void {
    const pushTo = (listener: Listener) => this.#pushTo(listener);
    this.#experimental.registerResolver(
      scheme,
      class implements ChannelResolver {
        readonly #resolver: ChannelResolver;

        constructor(target: Target, listener: Listener, channelOptions: Readonly<Record<string, unknown>>) {
          this.#resolver = make(target, pushTo(listener), channelOptions);
        }

        updateResolution(): void {
          this.#resolver.updateResolution();
        }

        destroy(): void {
          this.#resolver.destroy();
        }

        static getDefaultAuthority(target: Target): string {
          return authority(target);
        }
      },
    );
  }

  /** `make` gets the policy's own part of the service config. What `check` throws makes the channel take the next policy. */
  registerPolicy<C>(name: string, check: (json: unknown) => C, make: (host: PolicyHost, config: C) => Policy): void {
    class Config {
      readonly value: C;

      constructor(value: C) {
        this.value = value;
      }

      getLoadBalancerName(): string {
        return name;
      }

      toJsonObject(): object {
        return { [name]: this.value };
      }

      static createFromJson(json: unknown): Config {
        return new Config(check(json));
      }
    }
    const hostOf = (helper: Helper, rest: unknown[], latest: () => unknown[]) => this.#host(helper, rest, latest);
    class LoadBalancer {
      #policy: Policy | undefined;
      /** What leaves are made with, as of the last list: from 1.13 on. */
      #latest: unknown[] = [];
      readonly #host: PolicyHost;

      constructor(helper: Helper, ...rest: unknown[]) {
        this.#host = hostOf(helper, rest, () => this.#latest);
      }

      updateAddressList(
        list: GrpcEndpoint[] | StatusOr<GrpcEndpoint[]>,
        config: Config,
        options: Record<string, unknown> = {},
        note?: string,
      ): boolean {
        this.#latest = [options, note];
        this.#policy ??= make(this.#host, config.value);
        if (Array.isArray(list)) this.#policy.update(list, options);
        else if (list.ok) this.#policy.update(list.value, options);
        else this.#policy.failed(list.error.details);
        return true;
      }

      exitIdle(): void {} // it is never idle: each leaf is connected at once, and again
      resetBackoff(): void {}

      destroy(): void {
        this.#policy?.destroy();
      }

      getTypeName(): string {
        return name;
      }
    }
    this.#experimental.registerLoadBalancerType?.(name, LoadBalancer, Config);
  }

  #pushTo(listener: Listener): Push {
    const { statusOrFromValue, statusOrFromError } = this.#experimental;
    const status = (details: string): Status => ({
      code: this.#unavailable,
      details,
      metadata: new this.module.Metadata(),
    });
    if (typeof listener !== 'function' || !statusOrFromValue || !statusOrFromError) {
      const object = listener as ObjectListener;
      // Before 1.10 a list is of addresses, and a policy in a config is an object of its own.
      const isOld = this.#experimental.endpointToString === undefined;
      return {
        list: (endpoints, config, attributes) =>
          object.onSuccessfulResolution(
            isOld ? endpoints.flatMap(({ addresses }) => addresses) : endpoints,
            isOld ? this.#oldConfig(config) : config,
            null,
            null,
            attributes,
          ),
        error: (details) => object.onError(status(details)), // the last config stays by itself
      };
    }
    const wrapped = (config: ServiceConfig | null) => (config === null ? null : statusOrFromValue(config));
    return {
      list: (endpoints, config, attributes) =>
        void listener(statusOrFromValue(endpoints), attributes, wrapped(config), ''),
      // Without its config the channel would throw away a policy that works.
      error: (details, config) => void listener(statusOrFromError(status(details)), {}, wrapped(config), ''),
    };
  }

  #oldConfig(config: ServiceConfig | null): ServiceConfig | null {
    const policies = config?.loadBalancingConfig;
    if (!Array.isArray(policies)) return config;
    const known = policies.flatMap((policy) => {
      try {
        return [this.#experimental.validateLoadBalancingConfig?.(policy)];
      } catch {
        return []; // one that this copy does not know
      }
    });
    return { ...config, loadBalancingConfig: known };
  }

  #host(helper: Helper, rest: unknown[], latest: () => unknown[]): PolicyHost {
    const { createChildChannelControlHelper, LeafLoadBalancer, PickResultType } = this
      .#experimental as Required<Experimental>;
    const { COMPLETE, QUEUE, TRANSIENT_FAILURE } = PickResultType;
    const states = this.#states;
    const nothing = { subchannel: null, status: null, onCallStarted: null, onCallEnded: null };
    const unavailable = (details: string) => ({
      ...nothing,
      pickResultType: TRANSIENT_FAILURE,
      status: { code: this.#unavailable, details, metadata: new this.module.Metadata() },
    });
    return {
      queue: { ...nothing, pickResultType: QUEUE },
      unavailable,
      isComplete: ({ pickResultType }) => pickResultType === COMPLETE,
      report: (state, picker, problem) => helper.updateState(this.#numbers[state], picker, problem ?? null),
      connect: (endpoint, changed) => {
        const own = createChildChannelControlHelper(helper, {
          updateState: () => changed(),
          requestReresolution: () => {}, // the registry tells by itself
          ...(endpoint.serverName !== undefined && {
            createSubchannel: (address: unknown, args: object, ...more: unknown[]) =>
              helper.createSubchannel(
                address,
                { ...args, 'grpc.ssl_target_name_override': endpoint.serverName },
                ...more,
              ),
          }),
        });
        // What the constructor of a policy gets beyond its helper, a leaf gets too (1.10 to 1.12); else what comes with a list.
        const leaf = new LeafLoadBalancer(endpoint, own, ...(rest.length > 0 ? rest : latest()));
        leaf.startConnecting();
        return {
          get state() {
            return states.get(leaf.getConnectivityState()) ?? 'failed';
          },
          pick: (args) => leaf.getPicker().pick(args),
          exitIdle: () => leaf.exitIdle(),
          destroy: () => leaf.destroy(),
        };
      },
    };
  }
}
