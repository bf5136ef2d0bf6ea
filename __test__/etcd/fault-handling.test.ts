import { createRequire } from 'node:module';
import {
  BrokenCircuitError,
  bulkhead,
  ConsecutiveBreaker,
  ConstantBackoff,
  circuitBreaker,
  ExponentialBackoff,
  handleAll,
  handleWhen,
  noop,
  retry,
  TaskCancelledError,
  TimeoutStrategy,
  timeout,
  wrap,
} from 'cockatiel';
import { describe, expect, it } from 'vitest';
import { EtcdRoleNotFoundError, GRPCUnavailableError, isRecoverableError } from '../../lib/etcd/errors.js';
import type { CallContext } from '../../lib/etcd/rpc/clients.js';
import { FaultHandling, type FaultHandlingOptions } from '../../lib/etcd/transport/fault-handling.js';

const HOSTS = ['http://a:1', 'http://b:2', 'http://c:3'];
const GET: CallContext = { service: 'KV', method: 'range', isStream: false, params: {} };
const unavailable = (retryable = true) => new GRPCUnavailableError('14 UNAVAILABLE: x', { retryable });

/** Attempts that fail so many times, and what they were made with. */
function failing(times: number, error: () => Error = unavailable) {
  const seen: { host: number; options: unknown }[] = [];
  const attempt = async (host: number, options: unknown) => {
    seen.push({ host, options });
    if (seen.length <= times) throw error();
    return 'done';
  };
  return { seen, attempt };
}

describe('without policies', () => {
  it('nothing needs to run here, unless the options of calls come from a function', () => {
    expect(new FaultHandling(HOSTS).active).toBe(false);
    expect(new FaultHandling(HOSTS, { watchBackoff: new ConstantBackoff(5) }).active).toBe(false);
    expect(new FaultHandling(HOSTS, {}, { deadline: 5 }).active).toBe(false);
    expect(new FaultHandling(HOSTS, {}, () => ({})).active).toBe(true);
    expect(new FaultHandling(HOSTS, { global: noop }).active).toBe(true);
    expect(new FaultHandling(HOSTS, { host: () => noop }).active).toBe(true);
  });

  it('a call that may be sent again is tried 3 times more, any other one not', async () => {
    const handling = new FaultHandling(HOSTS, {}, () => ({}));
    const some = failing(3);
    await expect(handling.exec(GET, undefined, some.attempt)).resolves.toBe('done');
    expect(some.seen.map(({ host }) => host)).toEqual([-1, -1, -1, -1]);
    const all = failing(9);
    await expect(handling.exec(GET, undefined, all.attempt)).rejects.toBeInstanceOf(GRPCUnavailableError);
    expect(all.seen).toHaveLength(4);
    const unsafe = failing(1, () => unavailable(false));
    await expect(handling.exec(GET, undefined, unsafe.attempt)).rejects.toBeInstanceOf(GRPCUnavailableError);
    expect(unsafe.seen).toHaveLength(1);
  });
});

describe('options of calls', () => {
  it('are made anew for each attempt, below those of the call', async () => {
    const contexts: CallContext[] = [];
    const factory = (context: CallContext) => {
      contexts.push(context);
      return { deadline: contexts.length, timeoutMs: 7 };
    };
    const { seen, attempt } = failing(2);
    await new FaultHandling(HOSTS, {}, factory).exec(GET, { timeoutMs: 9 }, attempt);
    expect(contexts).toEqual([GET, GET, GET]);
    expect(seen.map(({ options }) => options)).toEqual([1, 2, 3].map((deadline) => ({ deadline, timeoutMs: 9 })));
  });

  it('whose function throws fail the call', async () => {
    const thrown = new Error('mine');
    const handling = new FaultHandling(HOSTS, {}, () => {
      throw thrown;
    });
    await expect(handling.exec(GET, undefined, failing(0).attempt)).rejects.toBe(thrown);
  });
});

describe('policies of cockatiel', () => {
  it('global: a retry decides how often, and by the class of the error', async () => {
    const handling = new FaultHandling(HOSTS, {
      global: retry(handleWhen(isRecoverableError), { maxAttempts: 2, backoff: new ConstantBackoff(0) }),
    });
    const two = failing(2, () => unavailable(false)); // the program's policy decides, not `retryable`
    await expect(handling.exec(GET, undefined, two.attempt)).resolves.toBe('done');
    const three = failing(3);
    await expect(handling.exec(GET, undefined, three.attempt)).rejects.toBeInstanceOf(GRPCUnavailableError);
    expect(three.seen).toHaveLength(3);
    const refused = failing(1, () => new EtcdRoleNotFoundError('x'));
    await expect(handling.exec(GET, undefined, refused.attempt)).rejects.toBeInstanceOf(EtcdRoleNotFoundError);
    expect(refused.seen).toHaveLength(1);
  });

  it('global: noop means one attempt', async () => {
    const { seen, attempt } = failing(1);
    await expect(new FaultHandling(HOSTS, { global: noop }).exec(GET, undefined, attempt)).rejects.toThrow(
      'UNAVAILABLE',
    );
    expect(seen).toHaveLength(1);
  });

  it('host: each is made once, with the name as given; attempts go to all hosts', async () => {
    const made: string[] = [];
    const host = (name: string) => {
      made.push(name);
      return noop;
    };
    const handling = new FaultHandling(HOSTS, { host });
    expect(made).toEqual(HOSTS);
    for (let round = 0; round < 20; round++) {
      const { seen, attempt } = failing(2);
      await handling.exec(GET, undefined, attempt);
      expect(new Set(seen.map(({ host: index }) => index))).toEqual(new Set([0, 1, 2]));
    }
    expect(made).toEqual(HOSTS);
  });

  it('host: one whose circuit is open is passed over; when all are, the call says so', async () => {
    const broken: string[] = [];
    const handling = new FaultHandling(HOSTS, {
      global: noop,
      host: (name) => {
        const policy = circuitBreaker(handleAll, { halfOpenAfter: 60_000, breaker: new ConsecutiveBreaker(1) });
        policy.onBreak(() => broken.push(name));
        return policy;
      },
    });
    const hosts: number[] = [];
    const down = async (index: number) => {
      hosts.push(index);
      throw unavailable();
    };
    for (let round = 0; round < 3; round++)
      await expect(handling.exec(GET, undefined, down)).rejects.toThrow('UNAVAILABLE');
    expect([...hosts].sort()).toEqual([0, 1, 2]);
    expect([...broken].sort()).toEqual(HOSTS);
    await expect(handling.exec(GET, undefined, down)).rejects.toBeInstanceOf(BrokenCircuitError);
    expect(hosts).toHaveLength(3);
  });

  it('a circuit that broke within the call gives way to what broke it', async () => {
    const handling = new FaultHandling(['a:1'], {
      global: retry(handleAll, { maxAttempts: 5, backoff: new ConstantBackoff(0) }),
      host: () => circuitBreaker(handleAll, { halfOpenAfter: 60_000, breaker: new ConsecutiveBreaker(2) }),
    });
    const { seen, attempt } = failing(99);
    await expect(handling.exec(GET, undefined, attempt)).rejects.toBeInstanceOf(GRPCUnavailableError);
    expect(seen).toHaveLength(2);
  });

  it('a timeout ends the attempt by its signal, and so does the signal of the call', async () => {
    const until = (_host: number, options: { signal?: AbortSignal } | undefined) =>
      new Promise<never>((_resolve, reject) => {
        options?.signal?.addEventListener('abort', () => reject(unavailable()), { once: true });
      });
    const limited = new FaultHandling(HOSTS, { global: timeout(20, TimeoutStrategy.Aggressive) });
    await expect(limited.exec(GET, undefined, until)).rejects.toBeInstanceOf(TaskCancelledError);
    const slow = wrap(timeout(60_000, TimeoutStrategy.Cooperative), retry(handleAll, { maxAttempts: 0 }));
    for (const policies of [{ global: slow }, { host: () => slow }, { global: slow, host: () => slow }]) {
      const abort = new AbortController();
      const call = new FaultHandling(HOSTS, policies).exec(GET, { signal: abort.signal }, until);
      setImmediate(() => abort.abort());
      await expect(call).rejects.toThrow();
    }
  });

  it('fit by type, as do those of another make', () => {
    const options: FaultHandlingOptions[] = [
      { global: retry(handleAll, { maxAttempts: 1 }), host: () => bulkhead(5), watchBackoff: new ExponentialBackoff() },
      { global: noop, host: () => noop, watchBackoff: new ConstantBackoff(50).next() },
      { global: { execute: async (fn) => fn({ signal: AbortSignal.abort() }) } },
    ];
    expect(options).toHaveLength(3);
  });

  it('a policy that hands on nothing will do', async () => {
    const bare = { execute: async (fn: () => unknown) => fn() } as never;
    const handling = new FaultHandling(HOSTS, { global: bare, host: () => bare });
    await expect(handling.exec(GET, undefined, failing(0).attempt)).resolves.toBe('done');
  });
});

it('cockatiel is the one that etcd3 brings', () => {
  const { version } = createRequire(import.meta.url)('cockatiel/package.json') as { version: string };
  expect(version).toMatch(/^3\./);
});
