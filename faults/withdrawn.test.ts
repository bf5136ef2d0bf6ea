// What the checker finds of instances that are out of traffic: histories in which one thing went wrong, or nearly did.

import { describe, expect, it } from 'vitest';
import type { Entry } from './history.js';
import { none, only } from './judged.js';
import { BOUNDS, type Made, ORIGIN, well } from './made.js';

describe('withdrawn', () => {
  const out = (made = well()) => made.withdraw('registrar 2', 'b', 19_000);
  const failed = (made: Made, takes = 5000) => {
    made.call('registrar 2', 'withdraw', 'b', 19_000, { error: 'ERR_TIMEOUT: late', takes });
    return made;
  };

  it('an instance that is out and there all the same, told of once', () => {
    const violation = only('withdrawn', out().holds('b', 22_000, 1).holds('b', 23_001).history());
    expect(violation).toMatchObject({ who: 'registrar 2', of: 'b', at: ORIGIN + 22_000, until: ORIGIN + 23_004 });
    expect(violation.says).toBe(
      'b is still in the registry from 22.000 s to 23.004 s (3 reads): registrar 2 withdrew it, which returned at 19.010 s.',
    );
  });
  it('one that stays away until it is called back, and one that an update leaves away', () => {
    none(out().restore('registrar 2', 'b', 30_000, 1).history());
    const made = out();
    made.call('registrar 2', 'update', 'b', 25_000, { n: 2 });
    none(made.restore('registrar 2', 'b', 30_000, 2).history());
  });
  it('what harms its process, or the servers, brings it back no more than anything else', () => {
    const harmed = (made: Made) =>
      made
        .fault(20_000, 21_000, ['registrar 2'])
        .fault(20_500, 22_000, ['registrar 1', 'registrar 2'], { servers: true })
        .history();
    none(harmed(out()));
    only('withdrawn', harmed(out().holds('b', 21_000, 1).holds('b', 24_000)));
  });
  it('a member that was stopped may show what was taken out meanwhile, for as long as is documented of it, and nothing else', () => {
    const made = (from: number, to: number, stopped = 18_000) => {
      const fault = { servers: true, shownUntil: 24_000 + ORIGIN };
      return out(well().fault(stopped, 21_000, ['registrar 2'], fault))
        .holds('b', from, 1)
        .holds('b', to)
        .history();
    };
    none(made(21_400, 23_900));
    only('withdrawn', made(20_400, 20_900));
    only('withdrawn', made(21_400, 24_600));
    only('withdrawn', made(21_400, 23_900, 19_500));
  });
  it('a read that was asked before withdraw() returned says nothing', () => {
    const made = well();
    made.call('registrar 2', 'withdraw', 'b', 19_000, { takes: 1000 });
    none(made.holds('b', 20_001).history());
  });
  it('once restore() is called, or it is registered anew, it may be there', () => {
    const made = out();
    made.call('registrar 2', 'restore', 'b', 30_000, { takes: 3000 });
    none(made.holds('b', 30_400, 1).history());
    none(
      out()
        .die('registrar 2', 20_000, 'killed')
        .start('registrar 2', 21_000)
        .register('registrar 2', 'b', 21_500, 9)
        .history(),
    );
  });
  it('one whose process dies stays away', () => {
    const died = () => out().die('registrar 2', 20_000, 'killed');
    none(died().history());
    only('withdrawn', died().holds('b', 21_000, 1).holds('b', 22_000).history());
  });
  it('a restore() that was settled, whatever came of it, makes it one that must be there', () => {
    only('registered', out().restore('registrar 2', 'b', 30_000, 1).holds('b', 33_000).history());
    const late = (until: number) => {
      const made = out().fault(29_000, 34_000, ['registrar 2']);
      made.call('registrar 2', 'restore', 'b', 30_000, { error: 'ERR_TIMEOUT: late', takes: 5000 });
      return made.holds('b', until, 1).history();
    };
    none(late(34_000 + BOUNDS.repairMs));
    only('registered', late(35_000 + BOUNDS.repairMs));
  });
  it('one that failed is out when the harm to its process and a repair are over', () => {
    const made = (gone: number) =>
      failed(well().fault(18_000, 23_000, ['registrar 2']))
        .holds('b', gone)
        .history();
    none(made(23_000 + BOUNDS.repairMs + 1));
    expect(only('withdrawn', made(24_500 + BOUNDS.repairMs)).says).toContain(
      'failed at 24.000 s and had to be done by 27.000 s',
    );
  });
  it('one that failed though nothing harmed its process is out when it fails', () => {
    none(failed(well()).holds('b', 24_001).history());
    only('withdrawn', failed(well()).holds('b', 24_600).history());
  });
  it('one that failed and whose process died is left to its TTL', () => {
    const made = (gone: number) =>
      failed(well().fault(18_000, 23_500, ['registrar 2']))
        .die('registrar 2', 25_000, 'killed')
        .holds('b', gone)
        .history();
    none(made(25_000 + BOUNDS.ttlMs + BOUNDS.removalMs));
    only('dead', made(26_000 + BOUNDS.ttlMs + BOUNDS.removalMs));
  });
  it('its own doing is no disturbance, and a loss beside it is one', () => {
    const event = (what: 'out' | 'in' | 'lost', at: number): Entry => {
      return { kind: 'event', at, who: 'registrar 2', of: 'b', event: what };
    };
    const made = () => out().restore('registrar 2', 'b', 30_000, 1).add(event('out', 19_001), event('in', 30_009));
    none(made().history());
    only('quiet', made().add(event('lost', 19_002)).history());
  });
});
