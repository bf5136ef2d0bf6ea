import { describe, expect, it } from 'vitest';
import { compareVersions, parseRange, parseVersion, satisfies, type Version } from '../../lib/service/semver.js';

const of = (text: string) => parseVersion(text) as Version;
const isIn = (version: string, range: string) => satisfies(of(version), parseRange(range) ?? []);

describe('versions', () => {
  it('are in the order of the specification, item 11', () => {
    const order =
      '1.0.0-alpha 1.0.0-alpha.1 1.0.0-alpha.beta 1.0.0-beta 1.0.0-beta.2 1.0.0-beta.11 1.0.0-rc.1 1.0.0 2.0.0 2.1.0 2.1.1';
    const versions = order.split(' ');
    for (const [i, a] of versions.entries()) {
      for (const [j, b] of versions.entries())
        expect(Math.sign(compareVersions(of(a), of(b))), `${a} ${b}`).toBe(Math.sign(i - j));
    }
  });

  it('may begin with v, lack parts, and carry a build', () => {
    expect(of('v1.2')).toEqual({ major: 1, minor: 2, patch: 0, pre: [] });
    expect(of('1.2.3-rc.1+build.7')).toEqual({ major: 1, minor: 2, patch: 3, pre: ['rc', 1] });
    expect(compareVersions(of('1.0.0+a'), of('1.0.0+b'))).toBe(0);
  });

  it.each(['', 'main', '1.2.3.4', '1.x', '-1', '1.2.3-', '1.2.3-a..b'])('%j is none', (text) => {
    expect(parseVersion(text)).toBeUndefined();
  });
});

describe('ranges', () => {
  // [range, in, out]
  it.each<[string, string, string]>([
    ['1.2.3', '1.2.3', '1.2.4 1.2.2 2.0.0'],
    ['=1.2.3', '1.2.3 v1.2.3', '1.2.4'],
    ['^1.2.3', '1.2.3 1.2.4 1.9.0', '1.2.2 2.0.0 2.0.0-rc.1 1.3.0-rc.1'],
    ['^0.2.3', '0.2.3 0.2.9', '0.3.0 0.2.2 1.0.0'],
    ['^0.0.3', '0.0.3', '0.0.4 0.0.2'],
    ['^0.0', '0.0.0 0.0.9', '0.1.0'],
    ['^0', '0.0.1 0.9.9', '1.0.0'],
    ['^1', '1.0.0 1.9.9', '0.9.9 2.0.0'],
    ['~1.2.3', '1.2.3 1.2.9', '1.3.0 1.2.2'],
    ['~1.2', '1.2.0 1.2.9', '1.3.0'],
    ['~1', '1.0.0 1.9.9', '2.0.0'],
    ['~> 1.2', '1.2.0', '1.3.0'],
    ['1.x', '1.0.0 1.9.9', '2.0.0 0.9.0'],
    ['1.2.*', '1.2.0 1.2.9', '1.3.0'],
    ['*', '0.0.0 9.9.9', '1.0.0-rc.1'],
    ['', '1.0.0', '1.0.0-rc.1'],
    ['>=1 <3', '1.0.0 2.9.9', '0.9.9 3.0.0'],
    ['>= 1.2.3 < 2', '1.2.3 1.9.9', '1.2.2 2.0.0 2.0.0-rc.1'],
    ['>1.2', '1.3.0', '1.2.9'],
    ['>1', '2.0.0', '1.9.9'],
    ['>1.2.3', '1.2.4', '1.2.3'],
    ['<1.2', '1.1.9', '1.2.0 1.2.0-rc.1'],
    ['<=1.2', '1.2.9', '1.3.0'],
    ['<=1.2.3', '1.2.3', '1.2.4'],
    ['1.2 - 2.3', '1.2.0 2.3.9', '1.1.9 2.4.0'],
    ['1.2.3 - 2.3.4', '1.2.3 2.3.4', '2.3.5'],
    ['1 - 2', '1.0.0 2.9.9', '3.0.0'],
    ['1.x || >=3.1', '1.5.0 3.1.0', '2.0.0 3.0.9'],
    ['>=1.2.3-rc.1', '1.2.3-rc.1 1.2.3-rc.2 1.2.3 1.2.4', '1.2.4-rc.1 1.2.3-beta'],
    ['^1.2.3-rc.1', '1.2.3-rc.2 1.9.0', '1.3.0-rc.1 2.0.0'],
    ['~1.2.3-rc.1', '1.2.3-rc.2 1.2.9', '1.3.0'],
    ['1.0.0-rc.1', '1.0.0-rc.1', '1.0.0 1.0.0-rc.2'],
    ['<*', '', '0.0.0 1.0.0'],
  ])('%j', (range, inside, outside) => {
    for (const version of inside.split(' ').filter(Boolean)) expect(isIn(version, range), version).toBe(true);
    for (const version of outside.split(' ').filter(Boolean)) expect(isIn(version, range), version).toBe(false);
  });

  it.each(['main', '^', '>=', '1.2.3.4', '^^1', '1 - ', '>a', '1 || b'])('%j is none', (range) => {
    expect(parseRange(range)).toBeUndefined();
  });
});
