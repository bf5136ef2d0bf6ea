// Any text, wherever an instance may have one: a registry takes it, and everybody finds it as it was given, or
// register() and update() say which argument can't be held before anything is written.
import type { InstanceInput, RollcallError } from 'rollcall';
import { expect } from 'vitest';
import { forEveryBackend } from './backends.js';
import { nextList, unstamped } from './kit.js';

const texts = [
  ...['plain', 'say "hi"', "it's", 'a`b', '"`"', 'a\\b', 'a b', ' lead', 'trail ', '*', '-', '$share', '{{y}}<b>'],
  ...['a/b', '.', '..', '...', '%', '%2F', '%~a', 'a?b#c', 'a&b=c+d', 'a:b;c,d', 'version=2', '__proto__', 'null'],
  ...[
    'consul',
    'zookeeper',
    'a\tb',
    'a\u0000b',
    'a\u007fb',
    'a\u0085b',
    'a\u00a0b',
    'a\u00adb',
    'a\u200bb',
    'a\u2028b',
  ],
  ...['a\u202eb', '\ufeffa', 'a\ufffeb', 'a\ue000b', 'a\ud800b', 'é', 'e\u0301', '한국', 'ﬀİ', '😀', '\u{10ffff}'],
  ...['l'.repeat(512), 'l'.repeat(513)],
];
const endpoints = [
  ...['grpc://10.0.0.1:9000', 'GRPC://Host.Example:9000/A', 'a.b+c://h:1', 'http://[::1]:80/a b?q="x"#f', 'http://h'],
  ...[
    'http://u:p@h:1',
    'grpc://ü.example:1',
    ' grpc://h:1',
    'grpc://h:1 ',
    'grpc://h:1\u00a0',
    'grpc://a b:1',
    'http:h:1',
  ],
  ...['http:///h:1', 'http:\\\\h:1', 'lan://h:1', 'wan://h:1', 'lan_ipv4://h:1', `grpc://${'h'.repeat(2000)}:1`],
];
/** Where no registry has a language of its own. */
const some = texts.filter((_, at) => at % 3 === 0);
const named = (text: string): Record<string, string> => Object.fromEntries([[text, 'v']]);

/** The argument, what it is given, and whether `update()` takes it as well. */
const table: [argument: RegExp, given: (text: string) => Partial<InstanceInput>, texts: string[], updates: boolean][] =
  [
    [/^instance\.name: /, (name) => ({ name }), texts, false],
    [/^instance\.id: /, (id) => ({ id }), texts, false],
    [/^(instance|patch)\.version: /, (version) => ({ version }), some, true],
    [/^(instance|patch)\.metadata\b/, (key) => ({ metadata: named(key) }), texts, true],
    [/^(instance|patch)\.metadata\b/, (k) => ({ metadata: { k } }), some, true],
    [/^instance\.endpoints\[0\]: /, (endpoint) => ({ endpoints: [endpoint] }), endpoints, true],
  ];

const refusal = (error: RollcallError): RollcallError => error;

forEveryBackend('values', (it) => {
  it(
    'what is taken is found unchanged by everybody, what is not is refused by its name',
    async (scope) => {
      const [mine, other] = [await scope.connect(), await scope.observer()];
      const row = async ([argument, given, values, updates]: (typeof table)[number], at: number): Promise<void> => {
        const plain = await mine.register({ name: 'updated', id: `u${at}` });
        for (const value of values) {
          const instance = { name: `n${at}`, id: `a${at}`, version: '', metadata: {}, endpoints: [], ...given(value) };
          const shown = JSON.stringify(given(value)).slice(0, 80);
          const registered = await mine.register(instance).catch(refusal);
          const refused = 'code' in registered ? [registered] : [];
          if (!('code' in registered)) {
            expect(unstamped(await mine.getService(instance.name, { consistent: true })), shown).toEqual([instance]);
            const watcher = other.watch(instance.name);
            expect(unstamped(await nextList(watcher)), shown).toEqual([instance]);
            watcher.stop();
            await registered.deregister();
          }
          if (updates) {
            const updated = await plain.update(given(value)).catch(refusal);
            expect(updated === undefined, `${shown}: ${updated?.message}`).toBe(refused.length === 0);
            if (updated) refused.push(updated);
          }
          for (const error of refused) {
            expect(error, shown).toMatchObject({ code: 'ERR_INVALID_ARGUMENT', retryable: false });
            expect(error.message, shown).toMatch(argument);
          }
        }
        expect(plain.state).toBe('registered');
        await plain.deregister();
      };
      await Promise.all(table.map(row));
      expect(await other.services()).toEqual([]);
    },
    { timeoutMs: 150_000 },
  );
});
