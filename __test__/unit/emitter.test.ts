import { errorMonitor, once } from 'node:events';
import { expect, it, vi } from 'vitest';
import { Emitter } from '../../lib/common/emitter.js';
import type { Log } from '../../lib/common/logger.js';

/** Behind everything that was to be told. */
const turn = () => new Promise<void>((resolve) => setImmediate(resolve));

const emitter = () => new Emitter({ up: ['up', 'down'], down: ['up', 'down'] });

it.each(['on', 'once', 'addListener', 'prependListener', 'prependOnceListener'] as const)(
  'gives the first listener, added by %s(), what came before it, after the code that added it',
  async (add) => {
    const events = emitter();
    const heard: unknown[] = [];
    events.tell('a', 1);
    events.tell('b', 2);
    events[add]('b', (value: number) => heard.push(`b${value}`));
    events[add]('a', (value: number) => heard.push(`a${value}`));
    expect(heard).toEqual([]);
    await turn();
    expect(heard).toEqual(['a1', 'b2']);
  },
);

it('keeps the order of what comes while the first listener is caught up with', async () => {
  const events = emitter();
  const heard: unknown[] = [];
  events.tell('a', 1);
  events.on('a', (value: number) => {
    heard.push(value);
    if (value === 1) events.tell('a', 3);
  });
  events.tell('a', 2);
  await turn();
  events.tell('a', 4);
  expect(heard).toEqual([1, 2, 3, 4]);
});

it('tells once, and only those who listen when somebody has heard', async () => {
  const events = emitter();
  events.tell('a', 1);
  expect(await once(events, 'a')).toEqual([1]);
  events.tell('a', 2); // those who listened have left
  const late: unknown[] = [];
  events.on('a', (value: number) => late.push(value));
  await turn();
  expect(late).toEqual([]);
});

it('keeps an event whose listener was taken back before it was told', async () => {
  const events = emitter();
  const listener = vi.fn();
  events.tell('a', 1);
  events.on('a', listener).off('a', listener);
  await turn();
  expect(listener).not.toHaveBeenCalled();
  expect(await once(events, 'a')).toEqual([1]);
});

it('keeps sixteen, and of a state the newest', async () => {
  const events = emitter();
  const heard: unknown[] = [];
  events.tell('up');
  events.tell('down');
  events.tell('up');
  for (const event of ['up', 'down']) events.on(event, () => heard.push(event));
  await turn();
  expect(heard.splice(0)).toEqual(['up']);
  for (let i = 0; i < 20; i++) events.tell('a', i);
  events.on('a', (value: number) => heard.push(value));
  await turn();
  expect(heard).toEqual(Array.from({ length: 16 }, (_, i) => i + 4));
});

it('a listener that ends it hears no more', async () => {
  const events = emitter();
  const heard: unknown[] = [];
  events.tell('a', 1);
  events.tell('a', 2);
  events.on('a', (value: number) => {
    heard.push(value);
    events.forgetAll();
  });
  await turn();
  expect(heard).toEqual([1]);
});

it('keeps every error that nobody hears, throws none, and logs what nobody was told', async () => {
  const events = emitter();
  const logged: string[] = [];
  const log: Log = { level: 'warn', write: (level, message) => void logged.push(`${level} ${message}`) };
  events.tellError(new Error('1'), 'a thing failed', log);
  events.tellError(new Error('2'), 'a thing failed', log, true);
  const heard: string[] = [];
  const listener = (error: Error) => heard.push(error.message);
  const seen: string[] = [];
  events.on(errorMonitor as never, (error: Error) => seen.push(error.message));
  events.on('error', listener);
  await turn();
  expect(heard.splice(0)).toEqual(['1', '2']);
  expect(seen).toEqual(['1', '2']);
  expect(logged).toEqual(['error a thing failed, and nobody listens to its "error": 1']);
  events.off('error', listener);
  events.tell('error', new Error('3'));
  events.on('error', listener);
  await turn();
  expect(heard).toEqual(['3']);
});

it('a listener that throws harms no other', async () => {
  const thrown = vi.fn();
  class Quiet extends Emitter {
    protected override threw(event: string, error: unknown) {
      thrown(event, error);
    }
  }
  const events = new Quiet();
  const heard = vi.fn();
  events.tell('a', 1);
  events.on('a', () => {
    throw 'oops';
  });
  events.on('a', heard);
  await turn();
  events.deliver('a', 2);
  expect(thrown.mock.calls).toEqual([
    ['a', 'oops'],
    ['a', 'oops'],
  ]);
  expect(heard.mock.calls).toEqual([[1], [2]]);
});
