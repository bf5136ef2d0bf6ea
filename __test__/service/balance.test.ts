import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { describe, expect, it } from 'vitest';
import { NoInstanceError } from '../../lib/errors.js';
import type { ServiceInstance } from '../../lib/registry/instance.js';
import { Balancer, type BalancerSettings } from '../../lib/service/balance.js';
import { OUTLIER_DEFAULTS } from '../../lib/service/ejector.js';
import { consistentHash } from '../../lib/service/pick/consistent-hash.js';
import { scheme, secure, version, zone } from '../../lib/service/pick/filters.js';
import { leastLoaded } from '../../lib/service/pick/least-loaded.js';
import { random } from '../../lib/service/pick/random.js';
import { roundRobin } from '../../lib/service/pick/round-robin.js';
import type { Change, Filter, Strategy } from '../../lib/service/pick/types.js';
import { weighted } from '../../lib/service/pick/weighted.js';
import { type CallResult, type Picked, Tickets } from '../../lib/service/ticket.js';
import { View } from '../../lib/service/view.js';
import { waitFor } from '../support/process.js';
import { seeded } from '../support/random.js';
import { idOf, instance } from './kit.js';

const sorted = (list: ServiceInstance[]) =>
  Object.freeze([...list].sort((a, b) => (a.id < b.id ? -1 : 1)).map((one) => Object.freeze(one)));
const many = (count: number, more: (n: number) => Partial<ServiceInstance> = () => ({})) =>
  sorted(Array.from({ length: count }, (_, n) => instance(idOf(n), more(n))));

function balanced(settings: Partial<BalancerSettings> = {}) {
  const time = { now: 5_000_000 };
  const lagged = { ms: 0 };
  const told: string[] = [];
  const logged: string[] = [];
  const lag = { wanted: true, want: () => {}, within: () => lagged.ms };
  const log = { level: 'warn' as const, write: (_: string, message: string) => void logged.push(message) };
  const balancer = new Balancer(
    'orders',
    { outlier: OUTLIER_DEFAULTS, warmUpMs: 0, allowLocal: false, ...settings },
    { now: () => time.now, random: seeded(11), lag, log },
    {
      ejected: ({ instance, reason }) => void told.push(`${instance.id} out: ${reason}`),
      restored: ({ id }) => void told.push(`${id} back`),
      panic: () => void told.push('panic'),
    },
  );
  const tickets = new Tickets(balancer);
  const view = (strategy: Strategy = roundRobin(), ...filters: Filter[]) =>
    new View(balancer, tickets, { filters, strategy });
  const picks = (from: View, count: number, result?: CallResult) => {
    const counts: Record<string, number> = {};
    for (let pick = 0; pick < count; pick++) {
      const picked = from.pick(undefined);
      counts[picked.instance.id] = (counts[picked.instance.id] ?? 0) + 1;
      picked.done(result);
    }
    return counts;
  };
  /** Calls until one goes there; that one ends so. */
  const endOf = (from: View, id: string, result: CallResult) => {
    const others: Picked[] = [];
    for (let picked = from.pick(undefined); ; picked = from.pick(undefined)) {
      if (picked.instance.id === id) {
        picked.done(result);
        break;
      }
      others.push(picked);
      if (others.length > 1000) throw new Error(`${id} is not picked`);
    }
    for (const other of others) other.done({ error: new DOMException('', 'AbortError') });
  };
  return { balancer, view, picks, endOf, time, lagged, told, logged };
}

const REFUSED = { error: Object.assign(new Error('connect'), { code: 'ECONNREFUSED' }) };

describe('which endpoint is called', () => {
  const both = () => many(3, (n) => ({ endpoints: [`http://10.0.0.${n}:80`, `grpcs://10.0.0.${n}:443`] }));

  it('the first of each instance, unless a filter says another', () => {
    const { balancer, view } = balanced();
    balancer.setList(both());
    expect(view().pick(undefined).endpoint.url).toMatch(/^http:/);
    expect(view(random(), secure()).pick(undefined).endpoint.url).toMatch(/^grpcs:/);
    const one = view();
    for (let pick = 0; pick < 9; pick++) expect(one.pick({ scheme: 'grpcs' }).endpoint.scheme).toBe('grpcs');
    expect(one.usable).toBe(3);
  });

  it('none with a weight of 0, none that can not be called, none that is another place for each caller', () => {
    const { balancer, view, logged } = balanced();
    balancer.setList(
      sorted([
        instance('a', { metadata: { weight: '0' } }),
        instance('b', { endpoints: ['http://no-port'] }),
        instance('c', { endpoints: [] }),
        instance('d', { endpoints: ['http://127.0.0.1:80'] }),
        instance('e', { endpoints: ['unix:///run/e', 'http://10.0.0.1:80'] }),
        instance('f', { version: '2.0.0' }),
      ]),
    );
    const one = view(roundRobin(), version('^1'));
    expect(one.pick(undefined).endpoint.url).toBe('http://10.0.0.1:80');
    const { usable, removed } = one.explain(undefined);
    expect(usable.map((each) => each.instance.id)).toEqual(['e']);
    expect(Object.fromEntries(removed.map(({ instance, by }) => [instance.id, by]))).toEqual({
      a: 'weight',
      b: 'endpoint',
      c: 'endpoint',
      d: 'local',
      f: 'version',
    });
    let error: unknown;
    try {
      one.pick({ exclude: new Set(['e']) });
    } catch (thrown) {
      error = thrown;
    }
    expect(error).toBeInstanceOf(NoInstanceError);
    expect(error).toMatchObject({
      code: 'ERR_UNAVAILABLE',
      service: 'orders',
      known: 6,
      removedBy: { weight: 1, endpoint: 2, local: 1, version: 1, exclude: 1 },
      ejected: 0,
    });
    expect(logged).toHaveLength(2); // once each: no host and port, local
    const all = balanced({ allowLocal: true });
    all.balancer.setList(balancer.list);
    expect(all.view().usable).toBe(3);
  });

  it.each(['x', '-1', '1000001', '', '1e3', 'NaN', 'Infinity'])(
    'a weight of %j is taken for 100, and told once',
    (weight) => {
      const { balancer, view, logged } = balanced();
      balancer.setList(many(3, () => ({ metadata: { weight } })));
      expect(
        view()
          .explain(undefined)
          .usable.map((one) => one.weight),
      ).toEqual([100, 100, 100]);
      expect(logged).toEqual([expect.stringContaining('metadata.weight')]);
    },
  );
});

describe('what is known of an instance', () => {
  it('stays when others come and go, and when it changes itself', () => {
    const { balancer, view, picks, endOf } = balanced();
    balancer.setList(many(4));
    const one = view();
    for (let failure = 0; failure < 5; failure++) endOf(one, idOf(1), { error: new Error('x') });
    const [a, b, c] = balancer.list as [ServiceInstance, ServiceInstance, ServiceInstance];
    const change = balancer.setList(sorted([a, { ...b, version: '1.0.1' }, c, instance('n')]));
    expect([change.added, change.removed, change.updated].map((list) => list.map(({ id }) => id))).toEqual([
      ['n'],
      [idOf(3)],
      [idOf(1)],
    ]);
    expect(Object.keys(picks(one, 30)).sort()).toEqual([idOf(0), idOf(2), 'n']);
  });

  it('stays over a time away under the same id and address; under a new id it is another process', () => {
    const { balancer, view, picks, endOf } = balanced();
    const list = many(4);
    balancer.setList(list);
    const one = view();
    endOf(one, idOf(1), REFUSED);
    balancer.setList(list.filter(({ id }) => id !== idOf(1)));
    balancer.setList(list);
    expect(Object.keys(picks(one, 30))).not.toContain(idOf(1));
    const { endpoints } = list[1] as ServiceInstance;
    balancer.setList(sorted([...list.filter(({ id }) => id !== idOf(1)), instance('new', { endpoints })]));
    expect(Object.keys(picks(one, 30))).toContain('new');
  });

  it('is shared by two instances at one address', () => {
    const { balancer, view, told, endOf } = balanced();
    balancer.setList(
      sorted([
        instance('a', { endpoints: ['grpc://h:1'] }),
        instance('b', { endpoints: ['grpc://h:1'] }),
        instance('c'),
        instance('d'),
      ]),
    );
    const one = view();
    const [first, second] = [one.pick(undefined), one.pick(undefined)];
    expect(balancer.inFlight).toBe(2);
    first.done();
    second.done();
    endOf(one, 'a', REFUSED);
    expect(told).toEqual(['a out: refused', 'b out: refused']);
    expect(one.explain(undefined).usable.map(({ instance }) => instance.id)).toEqual(['c', 'd']);
  });

  it('of 10,000 that come and go nothing is kept beyond the last 256', () => {
    const { balancer, view } = balanced();
    for (let round = 0; round < 100; round++) {
      balancer.setList(
        many(100, () => ({}))
          .map((one) => instance(`${round}-${one.id}`))
          .sort((a, b) => (a.id < b.id ? -1 : 1)),
      );
      view().pick(undefined).done();
    }
    expect(balancer.candidates).toHaveLength(100);
    expect(balancer.inFlight).toBe(0);
  });
});

describe('an instance that fails', () => {
  it('is set aside by one refused connection, tried by one call, and back', () => {
    const { balancer, view, picks, endOf, time, told } = balanced();
    balancer.setList(many(4));
    const one = view();
    endOf(one, idOf(2), REFUSED);
    expect(Object.keys(picks(one, 30))).toHaveLength(3);
    time.now += 1000;
    const burst = Array.from({ length: 20 }, () => one.pick(undefined)); // before any of them is done
    expect(burst.filter(({ instance }) => instance.id === idOf(2))).toHaveLength(1);
    for (const picked of burst) picked.done();
    expect(told).toEqual([`${idOf(2)} out: refused`, `${idOf(2)} back`]);
    expect(Object.keys(picks(one, 30))).toHaveLength(4);
  });

  it('when all are, all are used, and that is told once', () => {
    const { balancer, view, picks, endOf, told } = balanced({ outlier: { ...OUTLIER_DEFAULTS, maxEjected: 1 } });
    balancer.setList(many(4, (n) => ({ metadata: { zone: n < 2 ? 'a' : 'b' } })));
    const all = view();
    const some = view(roundRobin(), (list) => list.filter(({ instance }) => instance.metadata.zone === 'a'));
    endOf(all, idOf(0), REFUSED);
    endOf(all, idOf(1), REFUSED);
    expect(Object.keys(picks(some, 10, { error: new DOMException('', 'AbortError') })).sort()).toEqual([
      idOf(0),
      idOf(1),
    ]);
    expect(told.filter((what) => what === 'panic')).toHaveLength(1);
    expect(some.explain(undefined)).toMatchObject({ panic: true, usable: [{}, {}] });
    expect(Object.keys(picks(all, 10)).sort()).toEqual([idOf(2), idOf(3)]);
    const [back] = Object.keys(picks(some, 1)); // which succeeds: it is back, and the panic over
    expect(told.at(-1)).toBe(`${back} back`);
    expect(picks(some, 10)).toEqual({ [back as string]: 10 });
  });

  it('lets calls spill over to other zones', () => {
    const { balancer, view, picks, endOf } = balanced();
    balancer.setList(many(4, (n) => ({ metadata: { zone: n < 2 ? 'near' : 'far' } })));
    const one = view(roundRobin(), zone('near'));
    expect(Object.keys(picks(one, 10)).sort()).toEqual([idOf(0), idOf(1)]);
    endOf(one, idOf(0), REFUSED);
    expect(Object.keys(picks(one, 12)).sort()).toEqual([idOf(1), idOf(2), idOf(3)]);
  });

  it('keeps its keys for the time after', () => {
    const { balancer, view, endOf, time } = balanced();
    balancer.setList(many(10));
    const hash = view(consistentHash());
    const first = hash.pick({ key: 'k' });
    first.done();
    const home = first.instance.id;
    endOf(view(), home, REFUSED);
    const other = hash.pick({ key: 'k' });
    expect(other.instance.id).not.toBe(home);
    other.done();
    time.now += 1000;
    for (let key = 0; key < 50; key++) {
      const picked = hash.pick({ key: `${key}` });
      const isHome = hash.explain({ key: `${key}` }).picked === picked.instance;
      picked.done({ error: new DOMException('', 'AbortError') });
      // A call whose key is another's is not what tries it.
      if (picked.instance.id === home) expect(isHome).toBe(false);
    }
    const probe = hash.pick({ key: 'k' });
    expect(probe.instance.id).toBe(home);
    probe.done();
    expect(hash.explain({ key: 'k' }).picked?.id).toBe(home);
  });

  it('half of all calls cancelled by their callers: nobody is set aside, nothing stays in flight', () => {
    const { balancer, view, told } = balanced();
    balancer.setList(many(5));
    const one = view(leastLoaded());
    const random = seeded(4);
    const open: Picked[] = [];
    for (let call = 0; call < 10_000; call++) {
      open.push(one.pick(undefined));
      if (open.length < 50) continue;
      const [picked] = open.splice(Math.floor(random() * open.length), 1);
      picked?.done(random() < 0.5 ? { error: new DOMException('', 'AbortError') } : undefined);
    }
    for (const picked of open) picked.done({ error: Object.assign(new Error('Cancelled'), { code: 1 }) });
    expect(balancer.inFlight).toBe(0);
    expect(one.explain(undefined).usable.map(({ inFlight }) => inFlight)).toEqual([0, 0, 0, 0, 0]);
    expect(told).toEqual([]);
  });

  it('is not blamed for a blocked event loop of the caller; a refused connection counts all the same', () => {
    const { balancer, view, time, lagged, told } = balanced();
    balancer.setList(many(4));
    const one = view(leastLoaded());
    const open = Array.from({ length: 100 }, () => one.pick(undefined));
    time.now += 5000;
    lagged.ms = 4800;
    for (const picked of open) picked.done({ error: new DOMException('', 'TimeoutError') });
    expect(told).toEqual([]);
    expect(one.explain(undefined).usable.every(({ why }) => why.startsWith('cost 0.0500 = (0.0 + 5 ms)'))).toBe(true);
    one.pick(undefined).done(REFUSED);
    expect(told).toHaveLength(1);
    lagged.ms = 0;
    for (let call = 0; call < 60; call++) one.pick(undefined).done({ error: new DOMException('', 'TimeoutError') });
    expect(told.length).toBeGreaterThan(1);
  });
});

describe('done()', () => {
  it('a second time is ignored, and it needs no this', () => {
    const { balancer, view } = balanced();
    balancer.setList(many(1));
    const { done } = view().pick(undefined);
    expect(balancer.inFlight).toBe(1);
    done();
    done(REFUSED);
    expect(balancer.inFlight).toBe(0);
  });

  it.each<[unknown, RegExp]>([
    [new Error('x'), /^result: expected an object, got an error: write done\(\{ error \}\)/],
    [5, /^result: expected an object, got number/],
    [{ latencyMs: -1 }, /^result\.latencyMs: .* got -1/],
    [{ latencyMs: Number.NaN }, /^result\.latencyMs: /],
    [{ failed: 'yes' }, /^result\.failed: expected true or false, got string/],
  ])('%j is refused, and the call is done all the same', (result, message) => {
    const { balancer, view } = balanced();
    balancer.setList(many(1));
    const picked = view().pick(undefined);
    expect(() => picked.done(result as never)).toThrow(message);
    expect(balancer.inFlight).toBe(0);
  });

  it('never called: the calls are dropped with the garbage, which is told once', async () => {
    setFlagsFromString('--expose-gc');
    const gc = runInNewContext('gc') as () => void;
    const { balancer, view, logged } = balanced();
    balancer.setList(many(3));
    const one = view();
    const kept = one.pick(undefined);
    for (let call = 0; call < 10_000; call++) one.pick(undefined);
    expect(balancer.inFlight).toBe(10_001);
    // What is left: the batch of the one that is kept, and the one that is not full yet.
    await waitFor(
      () => {
        gc();
        return balancer.inFlight <= 2 * 64;
      },
      { timeoutMs: 20_000, what: 'the picks to be collected' },
    );
    expect(logged).toEqual([expect.stringContaining('done() was never called')]);
    kept.done();
  });
});

describe('a pick', () => {
  it('of a new instance is rare at first, once the service has others', () => {
    const { balancer, view, picks, time } = balanced({ warmUpMs: 10_000 });
    const list = many(3);
    balancer.setList(list);
    const one = view(random());
    expect(Math.min(...Object.values(picks(one, 3000)))).toBeGreaterThan(800); // the first list is warm
    balancer.setList(sorted([...list, instance('n')]));
    const shareOf = (counts: Record<string, number>) => (counts.n ?? 0) / 10_000;
    const [cold] = [shareOf(picks(one, 10_000))];
    expect(cold).toBeGreaterThan(0.02); // 0.1 of 3.1
    expect(cold).toBeLessThan(0.05);
    time.now += 5000;
    expect(shareOf(picks(one, 10_000))).toBeCloseTo(0.5 / 3.5, 1);
    time.now += 5000;
    expect(shareOf(picks(one, 10_000))).toBeCloseTo(0.25, 1);
    expect(Math.min(...Object.values(picks(view(weighted()), 4000)))).toBe(1000);
  });

  it('leaves out who was tried, whatever the strategy', () => {
    for (const strategy of [random(), roundRobin(), weighted(), leastLoaded(), consistentHash()]) {
      const { balancer, view } = balanced();
      balancer.setList(many(5));
      const one = view(strategy);
      const exclude = new Set<string>();
      for (let tries = 0; tries < 5; tries++) {
        const picked = one.pick({ exclude, key: 'k' });
        expect(exclude.has(picked.instance.id)).toBe(false);
        exclude.add(picked.instance.id);
      }
      expect(() => one.pick({ exclude, key: 'k' })).toThrow(NoInstanceError);
    }
  });

  it('with a strategy and a filter of its own', () => {
    const { balancer, view } = balanced();
    balancer.setList(many(4, (n) => ({ version: `${n}.0.0` })));
    const one = view();
    const [own, filter] = [consistentHash({ bound: false }), version('>=2')];
    const first = one.pick({ strategy: own, filter, key: 'k' }).instance;
    for (let pick = 0; pick < 10; pick++) expect(one.pick({ strategy: own, filter, key: 'k' }).instance).toBe(first);
    expect(() => one.pick({ strategy: own })).toThrow(/^options\.key: expected a string: consistentHash goes by it/);
    balancer.setList(many(1));
    expect(() => one.pick({ filter })).toThrow(NoInstanceError);
    expect(one.pick(undefined).instance.id).toBe(idOf(0));
  });

  it('with a strategy of its own goes over to the next list in place', () => {
    const { balancer, view } = balanced();
    let binds = 0;
    const own: Strategy = {
      name: 'own',
      bind(list) {
        binds++;
        let now = list;
        const update = ({ candidates }: Change) => {
          now = candidates;
          return true;
        };
        return { pick: () => now.at(-1) as never, update };
      },
    };
    balancer.setList(many(3));
    const one = view();
    for (let count = 4; count < 20; count++) {
      balancer.setList(many(count));
      expect(one.pick({ strategy: own }).instance.id).toBe(idOf(count - 1));
    }
    expect(binds).toBe(1);
  });

  it('is not slowed by an instance of another view that is to be tried', () => {
    const { balancer, view, endOf, time, picks } = balanced();
    balancer.setList(many(4, (n) => ({ version: n === 0 ? '1.0.0' : '2.0.0' })));
    endOf(view(), idOf(0), REFUSED);
    time.now += 2000;
    const second = view(roundRobin(), version('^2'));
    expect(Object.keys(picks(second, 9))).toHaveLength(3);
    expect(balancer.ejector?.due).toBeLessThan(time.now); // nobody has tried it
    expect(view().pick(undefined).instance.id).toBe(idOf(0));
  });

  it('of none: the error says what took them out', () => {
    const { balancer, view } = balanced();
    expect(() => view().pick(undefined)).toThrow(/^no instance of orders: the registry has none$/);
    balancer.setList(many(3));
    expect(() => view(random(), scheme('http'), version('^2')).pick(undefined)).toThrow(
      /^no instance of orders: of 3, scheme took out 3$/,
    );
  });

  it('a thousand changes, with picks between: always one of the list', () => {
    const next = seeded(21);
    for (const strategy of [random(), roundRobin(), weighted(), leastLoaded(), consistentHash()]) {
      const { balancer, view } = balanced();
      let list = many(20);
      balancer.setList(list);
      const one = view(strategy);
      for (let step = 0; step < 300; step++) {
        const changed = list
          .filter(() => next() > 0.05)
          .map((each) => (next() < 0.1 ? { ...each, metadata: { weight: `${1 + Math.floor(next() * 300)}` } } : each));
        if (next() < 0.6 || changed.length === 0) changed.push(instance(`n${Math.floor(next() * 1e6)}`));
        list = sorted(changed);
        balancer.setList(list);
        for (let pick = 0; pick < 5; pick++) {
          const picked = one.pick({ key: `${pick}` });
          expect(list).toContain(picked.instance);
          picked.done(next() < 0.1 ? REFUSED : undefined);
        }
      }
      expect(balancer.inFlight).toBe(0);
    }
  });
});
