import { describe, expect, it } from 'vitest';
import { check, figures, type Violation } from './check.js';
import { BOUNDS, LOCK, type Made, ORIGIN, well } from './made.js';
import { report } from './report.js';

const lines = (made: Made) => report(made.history(), check(made.history())).split('\n');

/** Something of everything. */
const busy = () => {
  const made = well()
    .fault(20_000, 21_000, ['registrar 1'], { what: 'black hole' })
    .fault(21_000, 23_000, ['registrar 2'], { what: 'black hole' })
    .fault(31_000, 31_500, ['watcher 1'], { what: 'freeze', mute: true })
    .add({ kind: 'hiccup', at: 35_000, until: 35_700 })
    .add({ kind: 'event', at: 20_100, who: 'registrar 1', of: 'a', event: 'lost' })
    .holds('a', 20_010)
    .holds('a', 22_400, 2);
  made.call('watcher 1', 'get', 'orders', 30_900, { takes: 800 });
  made.call('watcher 1', 'get', 'orders', 33_000, { error: 'TIMEOUT', takes: 20 });
  made.call('watcher 1', 'get', 'orders', 49_990, { open: true });
  made.call('candidate 1', 'acquire', LOCK, 39_100, { error: 'TIMEOUT' });
  return made.die('candidate 1', 38_000, 'killed').start('candidate 1', 39_000);
};

describe('figures', () => {
  const numbers = figures(busy().add({ kind: 'held', at: 39_100, who: 'candidate 1', of: LOCK, token: 40 }).history());
  it('count processes and faults', () => {
    expect(numbers).toMatchObject({ seconds: 50, processes: 6, starts: 7, killed: 1, crashed: 0, truths: 100 });
    expect([...numbers.faults]).toEqual([
      ['black hole', { count: 2, ms: 3000 }],
      ['freeze', { count: 1, ms: 500 }],
    ]);
    expect(numbers.hiccups).toEqual({ count: 1, ms: 700 });
  });
  it('measure repairs from the end of the fault', () => {
    const { count, losses, repairs, judged, reads, events } = numbers.registrations;
    expect([count, losses, repairs]).toEqual([2, 1, { count: 1, median: 1500, worst: 1500 }]); // 22,500 is the next read
    // Of a from 20 s to 25 s, of b from 21 s to 27 s, and both from 35 s to 39.7 s.
    expect([reads, reads - judged]).toEqual([198, 11 + 13 + 2 * 10]);
    expect([...events]).toEqual([['lost', 1]]);
  });
  it('count the reads of what must be out, and no update of it as late', () => {
    const out = well().withdraw('registrar 1', 'a', 20_000);
    out.call('registrar 1', 'update', 'a', 22_000, { n: 3 });
    const { registrations, watching } = figures(out.restore('registrar 1', 'a', 30_000, 3).history());
    expect(registrations.withdrawn).toEqual({ count: 1, reads: 19 }); // from 20,500 to 29,500
    expect(registrations.losses).toBe(0);
    expect(watching.delays.worst).toBe(15);
  });
  it('measure how late the watchers were', () => {
    // The second number of a, by two watchers: settled at 10,010 and told at 10,025.
    expect(numbers.watching.delays).toMatchObject({ worst: 15 });
  });
  it('measure calls without the time in which their process could do nothing', () => {
    expect(numbers.calls.get('get')).toEqual({ count: 3, failed: 1, open: 1, median: 300, worst: 300 });
  });
  it('count terms, and find who grew the most', () => {
    expect(numbers.terms.get(LOCK)).toMatchObject({ terms: 3, holders: 2, longestMs: 9000 - 1011 });
    expect(numbers.growth.get('rssMb')).toEqual({ who: 'registrar 1', from: 90, to: 90 });
  });
});

describe('a report', () => {
  it('says the seed, what was done and what was seen', () => {
    const text = lines(busy());
    expect(text[0]).toBe('Fault run: seed 7, backend etcd, 0.83 min');
    expect(text.slice(1, 7)).toEqual([
      '  50.0 s, 6 processes started 7 times, killed once, crashed 0 times, 100 reads.',
      '',
      'What was done',
      '  black hole               2  3.0 s in all',
      '  freeze                   1  0.5 s in all',
      '  the machine stood still  1        700 ms',
    ]);
    expect(text).toContain('  Registrations: 2, gone from the servers once, back once, median 1500 ms, worst 1500 ms.');
    expect(text).toContain('  Judged in 154 of 198 reads (78 %), in which nothing harmed their process.');
    expect(text).toContain('  Events of registrations: lost 1.');
    expect(text).toContain('  Withdrawn 0 times, and looked for in 0 reads.');
    expect(text).toContain('  Calls by name: 0, 0 of them with no excuse to fail; 0 failed.');
    expect(text.at(-1)).toBe('No violations');
  });
  it('groups violations by rule, with times from the start', () => {
    const text = lines(
      well().holds('a', 20_000).holds('a', 22_000, 2).die('candidate 1', 30_000, 'crashed', 'SIGSEGV'),
    );
    expect(text.slice(text.indexOf('2 violations'))).toEqual([
      '2 violations',
      '  registered: 1',
      '       20.000 s registrar 1: a is not in the registry, though registrar 1 registered it at 0.110 s:',
      '                from 20.000 s to 21.504 s (4 reads); no fault had touched it.',
      '  alive: 1',
      '       30.000 s candidate 1: candidate 1 died by itself at 30.000 s: SIGSEGV.',
    ]);
  });
  it('writes out ten of a rule and counts the rest', () => {
    const made = well();
    for (let i = 0; i < 13; i++) made.call('watcher 1', 'get', 'orders', 20_000 + i, { takes: 9000 });
    const text = lines(made);
    expect(text.filter((line) => line.includes('watcher 1: The get'))).toHaveLength(10);
    expect(text.at(-1)).toBe('    and 3 more');
  });
  it('stays within a hundred columns and writes nothing but text', () => {
    const made = well().fault(20_000, 20_000 + BOUNDS.ttlMs, [], { what: 'x'.repeat(300) });
    const says = `\u001b[31m${'word '.repeat(60)}${'y'.repeat(250)}\n\u0007`;
    const violations: Violation[] = [{ rule: 'flat', at: ORIGIN, who: 'z'.repeat(120), says }];
    const text = report(made.history(), violations);
    expect(Math.max(...text.split('\n').map((line) => line.length))).toBeLessThanOrEqual(100);
    // biome-ignore lint/suspicious/noControlCharactersInRegex: none of them may be there
    expect(text).not.toMatch(/[\u0000-\u0009\u000b-\u001f\u007f]/);
    expect(text.replace(/\s+/g, '')).toContain('y'.repeat(250));
  });
  it('tells of an empty history', () => {
    expect(report([], check([]))).toContain('The history is empty.');
  });
});
