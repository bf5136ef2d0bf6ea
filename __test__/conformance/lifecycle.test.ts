// Life and death of the process, and of the client inside it.
import { execFile } from 'node:child_process';
import { createRequire } from 'node:module';
import type { Registry } from 'rollcall';
import { describe, expect, test } from 'vitest';
import { forEveryBackend } from './backends.js';
import type { Step } from './kit.js';
import { hear, ids, inProcess, inThread, inTime, nextList, quiet, refused, sees, waitFor, within } from './kit.js';

const instance = { name: 'orders', id: 'a' };

/** Runs the body of an async function in a process of its own: `connect`, `options` and `say` are there. */
function program(options: unknown, body: string, flags: string[] = []) {
  const { resolve } = createRequire(import.meta.url);
  const source = `
    const { connect } = require(${JSON.stringify(resolve('rollcall'))});
    const signalExit = () => require(${JSON.stringify(resolve('signal-exit'))});
    const say = (...words) => console.log(...words);
    const options = ${JSON.stringify(options)};
    (async () => {${body}})();`;
  return new Promise<{ code: unknown; signal: unknown; stdout: string; stderr: string }>((done) => {
    const child = execFile(
      process.execPath,
      [...flags, '-e', source],
      { timeout: 20_000, killSignal: 'SIGKILL' },
      (_, stdout, stderr) => done({ code: child.exitCode, signal: child.signalCode, stdout, stderr }),
    );
  });
}

forEveryBackend('what keeps a process alive', (it) => {
  // A process of its own in every row: for memory its own memory server, which is all that is needed here.
  const run = (scope: { options(): object }, steps: Step[]) => inProcess(scope.options() as never, steps);

  it('nothing registered and no active watch: it ends at once, without close()', async (scope) => {
    const child = run(scope, [['getService', 'orders']]);
    const end = await child.until('end');
    const { code, at } = await within(child.exited, 10_000, 'the end');
    expect(code).toBe(0);
    expect(at - end.at).toBeLessThan(inTime(1500));
  });

  it('after deregister() it ends at once', async (scope) => {
    const child = run(scope, [
      ['register', instance],
      ['deregister', 'a'],
    ]);
    const end = await child.until('end');
    const { code, at } = await within(child.exited, 10_000, 'the end');
    expect([code, at - end.at < inTime(1500)]).toEqual([0, true]);
  });

  it('after a watch was left by break it ends at once', async (scope) => {
    const child = run(scope, [['watchOnce', 'orders']]);
    const end = await child.until('end');
    const { code, at } = await within(child.exited, 10_000, 'the end');
    expect([code, at - end.at < inTime(1500)]).toEqual([0, true]);
  });

  it('after close() it ends at once, whatever was registered and watched', async (scope) => {
    const child = run(scope, [['register', instance], ['watch', 'orders'], ['sleep', 200], ['close']]);
    await child.until('ended');
    const end = await child.until('end');
    const { code, at } = await within(child.exited, 10_000, 'the end');
    expect([code, at - end.at < inTime(1500)]).toEqual([0, true]);
  });

  it('a registration keeps it alive', async (scope) => {
    const child = run(scope, [['register', instance]]);
    await child.until('end');
    const early = await Promise.race([child.exited, quiet(3000)]); // twice what the ends above are given
    expect(early).toBeUndefined();
    await child.stop();
  });

  it('an active watch keeps it alive', async (scope) => {
    const child = run(scope, [['watch', 'orders']]);
    await child.until('end');
    const early = await Promise.race([child.exited, quiet(3000)]); // as above
    expect(early).toBeUndefined();
    await child.stop();
  });

  it('unref() lets it go, with registrations and watches; ref() takes that back', async (scope) => {
    const gone = run(scope, [['register', instance], ['watch', 'orders'], ['unref']]);
    const end = await gone.until('end');
    const { code, at } = await within(gone.exited, 10_000, 'the end');
    expect([code, at - end.at < 2000]).toEqual([0, true]);
    const kept = run(scope, [['register', { ...instance, id: 'b' }], ['unref'], ['ref']]);
    await kept.until('end');
    expect(await Promise.race([kept.exited, quiet(3000)])).toBeUndefined(); // as above
    await kept.stop();
  });

  it('unref() before anything is registered counts for what comes later', async (scope) => {
    const child = run(scope, [['unref'], ['register', instance], ['watch', 'orders']]);
    await child.until('end');
    expect((await within(child.exited, 10_000, 'the end')).code).toBe(0);
  });

  it('a call that is under way is answered before the process ends', async (scope) => {
    const child = run(scope, [['unref'], ['call', 'getService', 'orders'], ['call', 'services']]);
    expect((await within(child.exited, 10_000, 'the end')).code).toBe(0);
    expect(child.lines.filter(({ event }) => event === 'answered')).toHaveLength(2);
  });
});

forEveryBackend('closing', (it) => {
  it('close() is idempotent, and every later call fails with ERR_CLOSED', async (scope) => {
    const registry = await scope.connect();
    const registration = await registry.register(instance);
    const watcher = registry.watch('orders');
    await nextList(watcher);
    expect(registry.closed).toBe(false);
    await Promise.all([registry.close(), registry.close()]);
    await registry.close();
    expect(registry.closed).toBe(true);
    await refused(registry.register(instance), 'ERR_CLOSED');
    await refused(registry.register(instance, { background: true }), 'ERR_CLOSED');
    await refused(registry.getService('orders'), 'ERR_CLOSED');
    await refused(registry.getService('orders', { consistent: true }), 'ERR_CLOSED');
    await refused(registry.services(), 'ERR_CLOSED');
    await refused(registration.update({ version: '2' }), 'ERR_CLOSED');
    await registration.deregister(); // idempotent: it is gone
    expect((await watcher.next()).done).toBe(true);
    await refused(registry.watch('orders').next(), 'ERR_CLOSED');
  });

  it('no pending promise is left unsettled by close(): calls fail with ERR_CLOSED, watches are done', async (scope) => {
    const registry = await scope.connect();
    const registration = await registry.register({ name: 'orders', id: 'old' });
    const watcher = registry.watch('orders');
    await nextList(watcher);
    await scope.outage();
    const calls = [
      registry.register(instance, { timeoutMs: 60_000 }),
      registry.getService('orders', { consistent: true, timeoutMs: 60_000 }),
      registry.getService('unwatched', { timeoutMs: 60_000 }),
      registry.services({ timeoutMs: 60_000 }),
      registration.update({ version: '2' }, { timeoutMs: 60_000 }),
    ].map((call) => call.catch((error: unknown) => error));
    const nexts = [watcher.next(), registry.watch('never-answered').next()];
    const leaving = registration.deregister({ timeoutMs: 60_000 }).catch((error: unknown) => error);
    await quiet(100); // so that the calls are on their way, not merely queued
    await within(
      registry.close({ timeoutMs: 500 }).catch(() => undefined),
      2500,
      'close()',
    );
    const outcomes = await within(Promise.all(calls), 2000, 'the pending calls');
    for (const outcome of outcomes)
      expect(['ERR_CLOSED', 'ERR_UNAVAILABLE']).toContain((outcome as { code?: string }).code);
    expect(outcomes.filter((outcome) => (outcome as { code?: string }).code === 'ERR_CLOSED').length).toBeGreaterThan(
      0,
    );
    for (const next of await within(Promise.all(nexts), 1000, 'the pending next()')) expect(next.done).toBe(true);
    await within(leaving, 2000, 'the pending deregister()');
  });

  it('close() resolves when everything is drained: the records are gone by then', async (scope) => {
    const [registry, other] = [await scope.connect(), await scope.observer()];
    await Promise.all(Array.from({ length: 50 }, (_, i) => registry.register({ name: 'orders', id: String(i) })));
    await registry.close();
    expect(await other.getService('orders', { consistent: true })).toEqual([]);
  });

  it('close() while many calls are made settles each of them', async (scope) => {
    const registry = await scope.connect();
    const calls = Array.from({ length: 200 }, (_, i) =>
      (i % 2
        ? registry.register({ name: 'orders', id: String(i) })
        : registry.getService('orders', { consistent: true })
      ).then(
        () => 'answered',
        (error: { code: string }) => error.code,
      ),
    );
    await registry.close();
    const outcomes = new Set(await within(Promise.all(calls), 3000, 'the calls'));
    expect([...outcomes].filter((outcome) => outcome !== 'answered' && outcome !== 'ERR_CLOSED')).toEqual([]);
    await sees(await scope.observer(), 'orders', []);
  });

  it('two clients of one registry live and die apart', async (scope) => {
    const [one, two] = [await scope.connect(), await scope.connect()];
    await one.register({ name: 'orders', id: '1' });
    await two.register({ name: 'orders', id: '2' });
    await one.close();
    expect(ids(await two.getService('orders', { consistent: true }))).toEqual(['2']);
  });
});

forEveryBackend('the end of a process', (it, { lateMs = 0 }) => {
  /** Nothing is left, as soon as a read can tell. */
  const nothing = async (registry: Registry): Promise<void> => {
    const left = async () => registry.services();
    if (lateMs > 0) await waitFor(async () => (await left()).length === 0, { timeoutMs: lateMs, what: 'nothing' });
    expect(await left()).toEqual([]);
  };

  const ttlMs = 60_000; // so long that a record that is gone was removed, not expired

  it(
    'process.exit() deregisters: no record is left, the code stays, and it takes no longer than 500 ms more',
    async (scope) => {
      const other = await scope.observer();
      const child = await scope.process(
        [
          ['register', instance],
          ['registerMany', 'many', 20],
          ['exit', 3],
        ],
        { ttlMs },
      );
      const { code, at } = await within(child.exited, 15_000, 'the end');
      expect(code).toBe(3);
      const asked = child.lines.find(({ event, verb }) => event === 'step' && verb === 'exit');
      expect(at - (asked?.at ?? 0)).toBeLessThan(inTime(1500)); // and room for a busy machine, on which a process takes its time to end
      await nothing(other);
    },
    { needs: ['processes', 'manyRegistrations'] },
  );

  it(
    'process.exit() while the registry hangs takes no longer than 500 ms more',
    async (scope) => {
      const link = scope.options({ ttlMs });
      const child = inProcess(link, [['register', instance], ['hold'], ['sleep', 1500], ['exit', 0]]);
      await child.until('register:done');
      scope.link.hold();
      const { code, at } = await within(child.exited, 15_000, 'the end');
      const asked = child.lines.find(({ event, verb }) => event === 'step' && verb === 'exit');
      expect(code).toBe(0);
      expect(at - (asked?.at ?? 0)).toBeLessThan(inTime(1500)); // and room for a busy machine, on which a process takes its time to end
    },
    { needs: ['processes', 'slowWay'] },
  );

  it(
    'an uncaught exception deregisters: no record is left, and the exception is reported as ever',
    async (scope) => {
      const other = await scope.observer();
      const child = await scope.process(
        [
          ['register', instance],
          ['throw', 'the reason of the end'],
        ],
        { ttlMs },
      );
      const { code, stderr } = await within(child.exited, 15_000, 'the end');
      expect(code).toBe(1);
      expect(stderr).toContain('the reason of the end');
      await nothing(other);
    },
    { needs: ['processes'] },
  );

  it(
    'an unhandled rejection deregisters as well',
    async (scope) => {
      const other = await scope.observer();
      const child = await scope.process([['register', instance], ['reject', 'nobody caught this'], ['hold']], {
        ttlMs,
      });
      expect((await within(child.exited, 15_000, 'the end')).code).toBe(1);
      await nothing(other);
    },
    { needs: ['processes'] },
  );

  it(
    'a natural end after unref() deregisters',
    async (scope) => {
      const other = await scope.observer();
      const child = await scope.process([['register', instance], ['unref']], { ttlMs });
      expect((await within(child.exited, 15_000, 'the end')).code).toBe(0);
      await nothing(other);
    },
    { needs: ['processes'] },
  );

  it(
    'SIGKILL leaves it to the TTL: the record is gone within it',
    async (scope) => {
      const other = await scope.observer();
      const child = await scope.process([['register', instance], ['hold']]);
      await child.until('register:done');
      const start = performance.now();
      child.kill('SIGKILL');
      expect((await child.exited).signal).toBe('SIGKILL');
      expect(ids(await other.getService('orders', { consistent: true }))).toEqual(['a']);
      await sees(other, 'orders', [], scope.ttlMs + 3000);
      expect(performance.now() - start).toBeLessThan(scope.ttlMs + 2000); // etcd looks for expired leases twice a second
    },
    { needs: ['processes', 'expires', 'outlives', 'goesByTtl'] },
  );

  it(
    'a signal without a handler leaves it to the TTL',
    async (scope) => {
      const other = await scope.observer();
      const child = await scope.process([['register', instance], ['hold']]);
      await child.until('register:done');
      child.kill('SIGTERM');
      expect((await child.exited).signal).toBe('SIGTERM');
      expect(ids(await other.getService('orders', { consistent: true }))).toEqual(['a']);
      await sees(other, 'orders', [], scope.silenceMs + 3000);
    },
    { needs: ['processes', 'expires', 'outlives'] },
  );

  it(
    "signals: ['SIGTERM'] deregisters, then lets the signal through",
    async (scope) => {
      const other = await scope.observer();
      const child = await scope.process([['register', instance], ['hold']], {
        ttlMs,
        signals: ['SIGTERM'],
      });
      await child.until('register:done');
      child.kill('SIGTERM');
      expect(await within(child.exited, 5000, 'the end')).toMatchObject({ code: null, signal: 'SIGTERM' });
      await nothing(other);
    },
    { needs: ['processes'] },
  );

  it(
    "signals: ['SIGTERM'] beside a handler of the program: both happen, and the program decides on its end",
    async (scope) => {
      const other = await scope.observer();
      const child = await scope.process([['handle', 'SIGTERM', 7], ['register', instance], ['hold']], {
        ttlMs,
        signals: ['SIGTERM'],
      });
      await child.until('register:done');
      child.kill('SIGTERM');
      await child.until('handled');
      expect(await within(child.exited, 5000, 'the end')).toMatchObject({ code: 7, signal: null });
      await nothing(other);
    },
    { needs: ['processes'] },
  );

  it(
    'signals beside a listener that sends the signal again at once: the record is gone all the same',
    async (scope) => {
      const other = await scope.observer();
      // As Nest does it, without hooks of the program.
      const end = await program(
        scope.options({ ttlMs, signals: ['SIGTERM'] }),
        `
        const registry = await connect(options);
        await Promise.all(Array.from({ length: 20 }, () => registry.register({ name: 'orders' })));
        process.on('SIGTERM', function again() {
          process.off('SIGTERM', again);
          process.kill(process.pid, 'SIGTERM');
        });
        process.kill(process.pid, 'SIGTERM');`,
      );
      expect(end).toMatchObject({ signal: 'SIGTERM', stderr: '' });
      await nothing(other);
    },
    { needs: ['processes', 'manyRegistrations'] },
  );

  it(
    'signals beside signal-exit: its listeners run, and the signal goes through',
    async (scope) => {
      const other = await scope.observer();
      const end = await program(
        scope.options({ ttlMs, signals: ['SIGTERM'] }),
        `
        signalExit().onExit((code, signal) => say('signal-exit', code, signal));
        const registry = await connect(options);
        await registry.register({ name: 'orders' });
        process.kill(process.pid, 'SIGTERM');`,
      );
      expect(end).toMatchObject({ signal: 'SIGTERM', stdout: 'signal-exit null SIGTERM\n', stderr: '' });
      await nothing(other);
    },
    { needs: ['processes'] },
  );

  it(
    'signals beside a listener of the program added by once(): it decides on the end, and a warning says so',
    async (scope) => {
      const end = await program(
        scope.options({ ttlMs, signals: ['SIGTERM'], logger: undefined }),
        `
        process.once('SIGTERM', () => {
          setInterval(() => {}, 1000);
          const { write } = process.stderr; // the warning is what comes last
          process.stderr.write = (...all) => {
            setTimeout(() => process.exit(7), 200);
            return write.apply(process.stderr, all);
          };
        });
        const registry = await connect(options);
        await registry.register({ name: 'orders' });
        process.kill(process.pid, 'SIGTERM');`,
      );
      expect(end).toMatchObject({
        code: 7,
        stderr: 'rollcall: SIGTERM: closed; another listener of this signal decides when the process ends\n',
      });
    },
    { needs: ['processes'] },
  );

  it(
    'signals: a signal that is not named does what it always did',
    async (scope) => {
      const child = await scope.process([['register', instance], ['hold']], { signals: ['SIGTERM'] });
      await child.until('register:done');
      child.kill('SIGINT');
      expect((await within(child.exited, 5000, 'the end')).signal).toBe('SIGINT');
    },
    { needs: ['processes'] },
  );

  it(
    'frozen by SIGSTOP for longer than stallTimeoutMs and continued: no withdrawal',
    async (scope) => {
      const child = await scope.process([['register', instance], ['hold']], {
        ttlMs: 15_000,
        stallTimeoutMs: 2000,
      });
      await child.until('register:done');
      const before = await scope.stored('orders', 'a');
      child.kill('SIGSTOP');
      await quiet(6000); // three times stallTimeoutMs, less than the TTL
      child.kill('SIGCONT');
      await quiet(3000); // a withdrawal would come with the first beats after the freeze
      expect(await scope.stored('orders', 'a')).toEqual(before);
      expect([child.count('stalled'), child.count('lost')]).toEqual([0, 0]);
    },
    { needs: ['processes', 'rawRead'] },
  );

  it(
    'frozen by SIGSTOP for longer than the TTL and continued: lost, told once, and restored',
    async (scope) => {
      const other = await scope.observer();
      const child = await scope.process([['register', instance], ['hold']], { stallTimeoutMs: 1000 });
      await child.until('register:done');
      child.kill('SIGSTOP');
      await sees(other, 'orders', [], scope.silenceMs + 4000);
      child.kill('SIGCONT');
      await sees(other, 'orders', ['a'], 8000);
      await child.until('restored');
      expect([child.count('lost'), child.count('restored'), child.count('stalled')]).toEqual([1, 1, 0]);
    },
    { needs: ['processes', 'expires'] },
  );
});

forEveryBackend('worker threads', (it) => {
  it('a client works in a worker thread', async (scope) => {
    const other = await scope.connect();
    await other.register({ name: 'orders', id: 'main' });
    const worker = inThread(scope.options(), [
      ['register', instance],
      ['getService', 'orders', { consistent: true }],
      ['update', 'a', { version: '2' }],
      ['deregister', 'a'],
      ['close'],
    ]);
    expect((await worker.until('getService:done')).ids).toEqual(['a', 'main']);
    expect(await within(worker.exited, 5000, 'the end of the worker')).toBe(0);
    await sees(other, 'orders', ['main']);
  });

  it('a worker that ends by itself with a registration unreferenced deregisters', async (scope) => {
    const other = await scope.connect();
    const worker = inThread(scope.options({ ttlMs: 60_000 }), [['register', instance], ['unref']]);
    await worker.until('register:done');
    expect(await within(worker.exited, 5000, 'the end of the worker')).toBe(0);
    expect(worker.count('end')).toBe(1);
    await sees(other, 'orders', [], 2000);
  });

  it(
    'a worker terminated in the middle of work deregisters, and harms nobody',
    async (scope) => {
      const other = await scope.connect({ ttlMs: 60_000 });
      const kept = await other.register({ name: 'orders', id: 'main' });
      const heard = hear(kept);
      const worker = inThread(scope.options({ ttlMs: 60_000 }), [
        ['register', instance],
        ['watch', 'orders'],
        ['call', 'getService', 'orders', { consistent: true }],
        ['registerMany', 'many', 50],
        ['hold'],
      ]);
      await worker.until('list');
      await within(worker.stop(), 5000, 'terminate()');
      await sees(other, 'orders', ['main'], 3000);
      await sees(other, 'many', [], 5000);
      expect(heard.events).toEqual([]);
    },
    { needs: ['manyRegistrations'] },
  );

  it(
    'terminating twenty workers one after another, each at another moment, harms nobody',
    async (scope) => {
      const other = await scope.connect();
      for (let round = 0; round < 20; round++) {
        const worker = inThread(scope.options({ ttlMs: 60_000 }), [
          ['register', { name: 'orders', id: String(round) }],
          ['watch', 'orders'],
          ['hold'],
        ]);
        const moments = [['connected'], ['step'], ['register:done'], ['list']] as const;
        await worker.until(moments[round % moments.length]?.[0] as string);
        await within(worker.stop(), 5000, 'terminate()');
      }
      await sees(other, 'orders', [], 5000);
    },
    { timeoutMs: 60_000 },
  );

  it('the stall guard asks the thread that registered: a worker that blocks loses its own instance only', async (scope) => {
    const main = await scope.connect({ stallTimeoutMs: 1000 });
    await main.register({ name: 'orders', id: 'main' });
    const worker = inThread(scope.options({ stallTimeoutMs: 1000, ttlMs: 60_000 }), [
      ['register', instance],
      ['block', 5000],
      ['hold'],
    ]);
    await worker.until('register:done');
    await sees(main, 'orders', ['main'], 4500);
    await worker.until('restored');
    await sees(main, 'orders', ['a', 'main']);
    await worker.stop();
  });
});

describe('memory', () => {
  test('a closed client leaves nothing behind; an open one lives, held by nobody', async () => {
    const { stdout, stderr } = await program(
      { backend: 'memory', namespace: 'open', logger: false },
      `
      // What is awaited below is brought by clients that hold nothing: this holds the process until all is said.
      const held = setInterval(() => {}, 1000);
      const refs = [];
      const heard = [];
      const one = async () => {
        const registry = await connect('memory://leak');
        refs.push(new WeakRef(registry));
        const registration = await registry.register({ name: 'orders' });
        registry.watch('orders').next();
        await registration.update({ version: '2' });
        await registry.close();
      };
      const open = async () => {
        const registry = (await connect(options)).unref();
        (await registry.register({ name: 'orders', id: 'a' })).on('restored', () => heard.push('restored'));
        const watcher = registry.watch('orders');
        await watcher.next();
        (async () => { for await (const list of watcher) heard.push(list.length); })();
        return new WeakRef(registry);
      };
      const opened = await open();
      for (let i = 0; i < 200; i++) await one();
      for (let i = 0; i < 5; i++) {
        await new Promise((resolve) => setTimeout(resolve, 50));
        gc();
      }
      const { MemoryServer } = require(${JSON.stringify(createRequire(import.meta.url).resolve('rollcall'))});
      MemoryServer.of('open').expire('orders', 'a');
      await new Promise((resolve) => setTimeout(resolve, 1000));
      say(refs.filter((ref) => ref.deref()).length, opened.deref() !== undefined, heard.includes('restored'), heard.includes(1));
      clearInterval(held);
      `,
      ['--expose-gc'],
    );
    expect(stderr).toBe('');
    const [alive, ...rest] = stdout.trim().split(' ');
    expect(Number(alive)).toBeLessThanOrEqual(5);
    expect(rest).toEqual(['true', 'true', 'true']);
  });
});
