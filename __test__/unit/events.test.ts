import { expect, it } from 'vitest';
import type { Log } from '../../lib/common/logger.js';
import { Events } from '../../lib/registry/events.js';

function emitter() {
  const logged: string[] = [];
  const log: Log = { level: 'debug', write: (level, message) => void logged.push(`${level} ${message}`) };
  return { events: new Events<{ lost: [reason: string]; restored: [] }>(['lost', 'restored'], log), logged };
}

it('calls listeners in order, and those of once only once', () => {
  const { events } = emitter();
  const heard: string[] = [];
  events.add('lost', (reason: string) => heard.push(`a ${reason}`), false);
  events.add('lost', (reason: string) => heard.push(`b ${reason}`), true);
  events.tell('lost', '1');
  events.tell('lost', '2');
  events.tell('restored');
  expect(heard).toEqual(['a 1', 'b 1', 'a 2']);
});

it('takes a listener back, one addition at a time', () => {
  const { events } = emitter();
  let calls = 0;
  const listener = () => calls++;
  events.add('lost', listener, false);
  events.add('lost', listener, false);
  events.remove('lost', listener);
  events.remove('lost', () => {});
  events.tell('lost', '');
  expect(calls).toBe(1);
});

it('logs a listener that throws or rejects, and goes on', async () => {
  const { events, logged } = emitter();
  let reached = false;
  events.add(
    'lost',
    () => {
      throw new Error('first');
    },
    false,
  );
  events.add(
    'lost',
    async () => {
      throw new Error('second');
    },
    false,
  );
  events.add(
    'lost',
    () => {
      reached = true;
    },
    false,
  );
  events.tell('lost', '');
  await new Promise(setImmediate);
  expect(reached).toBe(true);
  expect(logged).toHaveLength(2);
  expect(logged[0]).toMatch(/^error a listener of "lost" failed: Error: first/);
  expect(logged[1]).toMatch(/^error a listener of "lost" failed: Error: second/);
});

it('may be changed by its listeners', () => {
  const { events } = emitter();
  const heard: string[] = [];
  const late = () => heard.push('late');
  events.add(
    'lost',
    () => {
      heard.push('early');
      events.add('lost', late, false);
    },
    true,
  );
  events.tell('lost', '');
  events.tell('lost', '');
  expect(heard).toEqual(['early', 'late']);
});

it('refuses events that do not exist', () => {
  const { events } = emitter();
  expect(() => events.add('losst', () => {}, false)).toThrow(
    'event: expected one of "lost", "restored"; did you mean "lost"?',
  );
  expect(() => events.add('lost', 5, false)).toThrow('listener: expected a function, got number');
});

it('survives whatever a listener throws', async () => {
  const { events, logged } = emitter();
  const hostile = {
    get stack() {
      throw new Error('no');
    },
  };
  for (const thrown of [Object.create(null), hostile, { stack: Symbol('s') }, undefined, null]) {
    events.add(
      'lost',
      () => {
        throw thrown;
      },
      false,
    );
  }
  events.add('lost', () => Promise.reject(Object.create(null)), false);
  events.tell('lost', '');
  await new Promise(setImmediate);
  expect(logged).toHaveLength(6);
  expect(logged[0]).toBe('error a listener of "lost" failed: something that has no text');
});
