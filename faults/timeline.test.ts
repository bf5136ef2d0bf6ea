import { describe, expect, it } from 'vitest';
import { check } from './check.js';
import type { Entry } from './history.js';
import { LOCK, NAME, ORIGIN, well } from './made.js';
import { timeline } from './timeline.js';

/** Reads what we write of XML, and refuses anything else. Gives each element's name, attributes and texts. */
function parse(xml: string): { name: string; attributes: Record<string, string>; text: string }[] {
  const all: { name: string; attributes: Record<string, string>; text: string }[] = [];
  const open: { name: string; text: string }[] = [];
  const plain = (value: string) => {
    if (/[<>]|&(?!(amp|lt|gt|quot|#39);)/.test(value)) throw new Error(`not escaped: ${value.slice(0, 80)}`);
    // biome-ignore lint/suspicious/noControlCharactersInRegex: XML forbids them
    if (/[\u0000-\u0008\u000b\u000c\u000e-\u001f]/.test(value)) throw new Error('a control character');
    return value;
  };
  for (const [, tag, text = ''] of xml.matchAll(/(<[^>]*>)([^<]*)/g)) {
    const [, end, name = '', written = '', empty] =
      tag?.match(/^<(\/?)([a-z]+)((?: [\w:-]+="[^"<>]*")*)(\/?)>$/i) ?? [];
    if (name === '') throw new Error(`no tag: ${tag}`);
    if (end) {
      if (open.pop()?.name !== name) throw new Error(`${name} was not open`);
    } else {
      const attributes = [...written.matchAll(/ ([\w:-]+)="([^"]*)"/g)].map(([, key, value]) => [
        key,
        plain(value ?? ''),
      ]);
      const element = { name, attributes: Object.fromEntries(attributes), text: '' };
      all.push(element);
      if (!empty) open.push(element);
    }
    const last = open.at(-1);
    if (last !== undefined) last.text += plain(text);
    else expect(text.trim()).toBe('');
  }
  expect(open).toEqual([]);
  expect(xml.startsWith('<svg ')).toBe(true);
  return all;
}

const draw = (history: readonly Entry[]) => parse(timeline(history, check(history)));
const ofClass = (elements: ReturnType<typeof parse>, name: string, wanted: string) =>
  elements.filter((element) => element.name === name && element.attributes.class === wanted);
const texts = (elements: ReturnType<typeof parse>) =>
  elements.filter(({ name }) => name === 'text').map(({ text }) => text);
const titles = (elements: ReturnType<typeof parse>) =>
  elements.filter(({ name }) => name === 'title').map(({ text }) => text);

describe('a timeline', () => {
  it('has a lane for each process and for the servers, and a time axis', () => {
    const drawn = draw(well().history());
    const processes = ['registrar 1', 'registrar 2', 'watcher 1', 'watcher 2', 'candidate 1', 'candidate 2'];
    expect(ofClass(drawn, 'g', 'lane')).toHaveLength(processes.length + 1);
    expect(texts(drawn)).toEqual(expect.arrayContaining(['servers', ...processes, '0 s', '50 s', 'calm']));
    expect(texts(drawn)[0]).toBe('Fault run of etcd, seed 7: no violations');
  });
  it('shows each fault in the lanes that it touches, and names it in the legend', () => {
    const made = well()
      .fault(20_000, 24_000, ['registrar 1', 'watcher 1'], { what: 'reset', target: 'zone a' })
      .fault(26_000, 27_000, ['watcher 1'], { what: 'kill', target: 'member 2', servers: true });
    const drawn = draw(made.history());
    expect(titles(drawn).filter((title) => title === 'reset: zone a, 20.000 s to 24.000 s')).toHaveLength(2);
    expect(titles(drawn).filter((title) => title.startsWith('kill: member 2'))).toHaveLength(2); // one with the servers
    expect(texts(drawn)).toEqual(expect.arrayContaining(['reset', 'kill']));
  });
  it('shows what the servers hold, who is stale and who holds a lock', () => {
    const made = well().holds('a', 20_000).holds('a', 22_000, 2);
    const drawn = draw(
      made
        .add({ kind: 'stale', at: 30_000, who: 'watcher 1', name: NAME })
        .add({ kind: 'fresh', at: 31_000, who: 'watcher 1', name: NAME })
        .die('candidate 2', 35_000, 'killed')
        .history(),
    );
    expect(titles(drawn)).toEqual(
      expect.arrayContaining([
        'a registered, 0.110 s to 20.000 s',
        'a not in the registry, 20.000 s to 22.000 s',
        'a registered, 22.000 s to 50.000 s',
        'orders stale, 30.000 s to 31.000 s',
        `${LOCK}, token 11, 1.011 s to 9.000 s`,
        'killed at 35.000 s',
      ]),
    );
  });
  it('has a mark for each violation, which says it under the pointer', () => {
    const made = well().holds('a', 20_000).holds('a', 22_000, 2).die('candidate 1', 30_000, 'crashed', 'SIGSEGV');
    const history = [...made.history(), made.history()[3] as Entry];
    const violations = check(history);
    expect(violations.length).toBeGreaterThanOrEqual(2);
    const drawn = draw(history);
    expect(ofClass(drawn, 'g', 'violation')).toHaveLength(violations.length);
    expect(titles(drawn)).toContain('alive, 30.000 s: candidate 1 died by itself at 30.000 s: SIGSEGV.');
  });
  it('has a lane for violations that are of no process', () => {
    const history = well()
      .history()
      .filter(({ kind }) => kind !== 'end');
    const drawn = draw(history);
    expect(texts(drawn)).toContain('the run');
    expect(ofClass(drawn, 'g', 'violation')).toHaveLength(1);
  });
  it('escapes hostile names', () => {
    const name = `</text><script>alert("1 & '2'")</script>\u0000\u0007\ud800]]>`;
    const made = well()
      .start(name, 5)
      .register(name, name, 300, 1)
      .fault(20_000, 21_000, [name], { what: name, target: name })
      .die(name, 30_000, 'crashed', name);
    const svg = timeline(made.history(), check(made.history()));
    expect(parse(svg).some((element) => element.name === 'script')).toBe(false);
    expect(svg).toContain('&lt;script&gt;alert(&quot;1 &amp; &#39;2&#39;&quot;)');
  });
  it('is drawn of histories that are cut short, too', () => {
    const history = well().history();
    for (const cut of [[], history.slice(0, 1), history.slice(5, 200), [{ kind: 'end', at: Number.NaN } as const]]) {
      expect(ofClass(draw(cut), 'g', 'violation').length).toBeGreaterThan(0);
    }
  });
  it('is the same for light and dark readers, and runs nothing', () => {
    const svg = timeline(well().history(), [{ rule: 'flat', at: ORIGIN, who: 'registrar 1', says: 'x' }]);
    expect(svg).toContain('prefers-color-scheme: dark');
    expect(svg).not.toMatch(/<script|on\w+="|href/);
  });
});
