// A way to an API server of Kubernetes that cuts, garbles and lies.
import { describe, expect, test } from 'vitest';
import { ids, listsUntil, quiet, refused, waitFor } from '../conformance/kit.js';
import { isWatch, type Way } from '../support/kubernetes-way.js';
import type { Finish } from './kit.js';
import { client, clientByWay, oneServer, put, shared, told, way } from './kubernetes-kit.js';

oneServer();

describe.concurrent('the way', () => {
  test('a watch that is cut in the middle of a line misses nothing', async (context) => {
    const namespace = await shared.kubernetes.namespace();
    await put(namespace, 'a');
    const { link, registry } = await clientByWay(context, namespace);
    const watcher = registry.watch('orders');
    await listsUntil(watcher, ['a']);
    for (let round = 1; round <= 3; round++) {
      let cut = false;
      link.onWatch = (chunk, answer) => {
        if (cut) return true;
        cut = true;
        answer.write(chunk.subarray(0, chunk.length >> 1), () => answer.destroy());
        return false;
      };
      await put(namespace, `cut-${round}`);
      await waitFor(() => watcher.current?.some(({ id }) => id === `cut-${round}`), {
        timeoutMs: 20_000,
        what: `the change of round ${round}`,
      });
      expect(cut).toBe(true);
    }
  });

  test('"too old" is answered by a list anew, at once, and nothing is stale', async (context) => {
    const namespace = await shared.kubernetes.namespace();
    await put(namespace, 'a');
    const link = await way(context);
    const registry = await client(context, namespace, {
      server: `https://${link.host}`,
      watchTimeoutMs: 2000,
      source: 'pods',
    });
    const watcher = registry.watch('orders');
    const events = told(watcher);
    await listsUntil(watcher, ['a']);
    let times = 0;
    link.instead = (path, answer) => {
      if (!isWatch(path) || times++ > 0) return false;
      const object = { kind: 'Status', status: 'Failure', reason: 'Expired', code: 410 };
      const message = 'too old resource version: 1 (2)';
      answer.writeHead(200, { 'content-type': 'application/json' });
      answer.end(`${JSON.stringify({ type: 'ERROR', object: { ...object, message } })}\n`);
      return true;
    };
    await waitFor(() => times > 1, { timeoutMs: 20_000, what: 'the watch after the refusal' });
    await put(namespace, 'b');
    await listsUntil(watcher, ['a', 'b']);
    expect(events).toEqual([]);
  });

  test('"too old" again and again in the middle of changes: the last list is right, and nothing is stale', {
    timeout: 90_000,
  }, async (context) => {
    const namespace = await shared.kubernetes.namespace();
    await put(namespace, 'a');
    const { link, registry } = await clientByWay(context, namespace, { source: 'pods' });
    const watcher = registry.watch('orders');
    const events = told(watcher);
    await listsUntil(watcher, ['a']);
    const expired = {
      ...{ kind: 'Status', status: 'Failure', message: 'too old resource version', reason: 'Expired', code: 410 },
    };
    let [pieces, ends, isWhole] = [0, 0, true];
    link.onWatch = (chunk, answer) => {
      const isLine = isWhole;
      isWhole = chunk.at(-1) === 10;
      // Some changes are passed on, then the watch ends so.
      if (!isLine || pieces++ % 5 < 4) return true;
      ends++;
      isWhole = true;
      answer.end(`${JSON.stringify({ type: 'ERROR', object: expired })}\n`);
      return false;
    };
    for (let i = 1; i <= 200; i++) await put(namespace, 'abcdefg'.charAt(i % 7), { version: String(i) });
    const last = () => watcher.current?.map(({ id, version }) => `${id}${version}`).join();
    await waitFor(() => last() === 'a196,b197,c198,d199,e200,f194,g195', {
      timeoutMs: 20_000,
      what: 'the last changes',
    });
    expect(ends).toBeGreaterThan(3);
    expect(events).toEqual([]);
  });

  test.each<[string, (answer: Parameters<NonNullable<Way['instead']>>[1]) => void]>([
    ['a page of HTML', (answer) => void answer.writeHead(200, { 'content-type': 'text/html' }).end('<!DOCTYPE html>')],
    ['an error page', (answer) => void answer.writeHead(502, { 'content-type': 'text/html' }).end('<html>')],
    ['500', (answer) => void answer.writeHead(500).end('oops')],
    ['503 with Retry-After', (answer) => void answer.writeHead(503, { 'retry-after': '1' }).end()],
    ['429 with Retry-After', (answer) => void answer.writeHead(429, { 'retry-after': '1' }).end()],
    ['half a list', (answer) => void answer.writeHead(200, { 'content-length': 1000 }).write('{"items":[{"meta')],
    [
      'a line of 65 MB',
      (answer) => {
        const huge = Buffer.alloc(1024 * 1024, 'x');
        let left = 65;
        answer.writeHead(200, { 'content-type': 'application/json' });
        answer.write('{"type":"');
        const more = (): void => {
          while (left-- > 0) if (!answer.write(huge)) return void answer.once('drain', more);
          answer.end();
        };
        more();
      },
    ],
  ])('%s in the place of every answer: stale, typed errors, and all goes on after it', async (_, instead) => {
    const undo: (() => Promise<unknown>)[] = [];
    const context: Finish = { onTestFinished: (what) => void undo.push(async () => (what as () => unknown)()) };
    try {
      const namespace = await shared.kubernetes.namespace();
      await put(namespace, 'a');
      const { link, registry } = await clientByWay(context, namespace);
      const watcher = registry.watch('orders');
      await listsUntil(watcher, ['a']);
      link.instead = (_path, answer) => {
        instead(answer);
        return true;
      };
      link.sever();
      await waitFor(() => watcher.stale, { timeoutMs: 20_000, what: 'the watch to be stale' });
      const read = registry.getService('orders', { consistent: true, timeoutMs: 3000 });
      await refused(read, ['ERR_UNAVAILABLE', 'ERR_TIMEOUT']);
      expect(ids(watcher.current ?? [])).toEqual(['a']);
      await put(namespace, 'b');
      link.instead = undefined;
      link.sever();
      await waitFor(() => ids(watcher.current ?? []).join() === 'a,b', { timeoutMs: 25_000, what: 'the truth' });
    } finally {
      for (const one of undo.reverse()) await one();
    }
  });

  test('a watch that brings bookmarks alone goes on, and an idle one is no outage', {
    timeout: 60_000,
  }, async (context) => {
    const namespace = await shared.kubernetes.namespace();
    await put(namespace, 'a');
    const registry = await client(context, namespace, { watchTimeoutMs: 1000 });
    const watcher = registry.watch('orders');
    const events = told(watcher);
    await listsUntil(watcher, ['a']);
    await quiet(8000); // several watches end, by their time, without any event
    expect(events).toEqual([]);
    await put(namespace, 'b');
    await listsUntil(watcher, ['a', 'b']);
  });
});
