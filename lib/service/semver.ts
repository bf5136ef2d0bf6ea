/**
 * Versions and ranges of them, as npm writes them: `^1.2`, `~1.2.3`, `>=1 <3`, `1.x`, `1.2 - 2.3`, with `||` between.
 *
 * Source: Semantic Versioning 2.0.0 (order, item 11) and the ranges of `node-semver`, whose rule for pre-releases holds
 * here too: `1.3.0-rc.1` is in a range only if that range names a pre-release of 1.3.0 itself.
 */

/** A version, taken apart. */
export interface Version {
  readonly major: number;
  readonly minor: number;
  readonly patch: number;
  /** Of `1.0.0-rc.1`: `rc` and 1. */
  readonly pre: readonly (string | number)[];
}

type Operator = '<' | '<=' | '>' | '>=' | '=';

interface Comparator {
  readonly operator: Operator;
  readonly version: Version;
}

/** Any of these, each of which is all of those. */
export type Range = readonly (readonly Comparator[])[];

const PRE = '(?:-([0-9A-Za-z-]+(?:\\.[0-9A-Za-z-]+)*))?(?:\\+[0-9A-Za-z.-]+)?';
const FULL = new RegExp(`^v?(\\d{1,15})(?:\\.(\\d{1,15}))?(?:\\.(\\d{1,15}))?${PRE}$`);
const PARTIAL = new RegExp(`^[v=]?(\\d{1,15}|[xX*])(?:\\.(\\d{1,15}|[xX*]))?(?:\\.(\\d{1,15}|[xX*]))?${PRE}$`);

/** Takes a version apart, a leading `v` and missing parts allowed; `undefined` for any other text. */
export function parseVersion(text: string): Version | undefined {
  const found = FULL.exec(text.trim());
  if (!found) return undefined;
  const [, major, minor = 0, patch = 0, pre] = found;
  return { major: Number(major), minor: Number(minor), patch: Number(patch), pre: identifiers(pre) };
}

function identifiers(text: string | undefined): (string | number)[] {
  return text === undefined ? [] : text.split('.').map((part) => (/^\d+$/.test(part) ? Number(part) : part));
}

/** Less than 0 when `a` comes before `b`, 0 when neither does. */
export function compareVersions(a: Version, b: Version): number {
  const numbers = a.major - b.major || a.minor - b.minor || a.patch - b.patch;
  if (numbers !== 0) return numbers;
  if (a.pre.length === 0 || b.pre.length === 0) return b.pre.length - a.pre.length; // a release comes after its pre-releases
  for (let place = 0; place < Math.max(a.pre.length, b.pre.length); place++) {
    const [left, right] = [a.pre[place], b.pre[place]];
    if (left === right) continue;
    if (left === undefined) return -1;
    if (right === undefined) return 1;
    if (typeof left !== typeof right) return typeof left === 'number' ? -1 : 1; // numbers come before words
    return left < right ? -1 : 1;
  }
  return 0;
}

/** Takes a range apart; `undefined` for what is none. */
export function parseRange(text: string): Range | undefined {
  const sets: (readonly Comparator[])[] = [];
  for (const part of text.split('||')) {
    const set = parseSet(part.trim());
    if (!set) return undefined;
    sets.push(set);
  }
  return sets;
}

function parseSet(text: string): Comparator[] | undefined {
  const hyphen = /^(\S+)\s+-\s+(\S+)$/.exec(text);
  if (hyphen) {
    const [from, to] = [partial(hyphen[1] as string), partial(hyphen[2] as string)];
    return from && to && [{ operator: '>=', version: floor(from) }, ...upTo(to)];
  }
  const words = text.replace(/([<>]=?|[~^=])\s+/g, '$1').split(/\s+/);
  const all: Comparator[] = [];
  for (const word of words) {
    if (word === '') continue;
    const found = /^([<>]=?|~>?|\^|=)?(.*)$/.exec(word);
    const version = partial(found?.[2] ?? '');
    if (!version) return undefined;
    all.push(...comparators(found?.[1] ?? '', version));
  }
  return all;
}

/** A version whose last parts may be missing. */
interface Prefix {
  readonly parts: readonly number[];
  readonly pre: readonly (string | number)[];
}

function partial(text: string): Prefix | undefined {
  if (text === '') return undefined;
  const found = PARTIAL.exec(text);
  if (!found) return undefined;
  const parts: number[] = [];
  for (const part of found.slice(1, 4)) {
    if (part === undefined || /[xX*]/.test(part)) break;
    parts.push(Number(part));
  }
  return { parts, pre: parts.length === 3 ? identifiers(found[4]) : [] };
}

const at = (parts: readonly number[], pre: readonly (string | number)[] = []): Version => ({
  major: parts[0] ?? 0,
  minor: parts[1] ?? 0,
  patch: parts[2] ?? 0,
  pre,
});
const floor = ({ parts, pre }: Prefix): Version => at(parts, pre);
/** The first version after all that begin with the first `count` parts; itself and its own pre-releases are out. */
const after = (parts: readonly number[], count: number): Version =>
  at([...parts.slice(0, count - 1), (parts[count - 1] ?? 0) + 1], [0]);

function upTo(to: Prefix): Comparator[] {
  if (to.parts.length === 0) return [];
  if (to.parts.length === 3) return [{ operator: '<=', version: floor(to) }];
  return [{ operator: '<', version: after(to.parts, to.parts.length) }];
}

function comparators(operator: string, given: Prefix): Comparator[] {
  const { parts } = given;
  const from: Comparator = { operator: '>=', version: floor(given) };
  const below = (count: number): Comparator => ({ operator: '<', version: after(parts, count) });
  if (parts.length === 0) {
    return operator === '<' || operator === '>' ? [{ operator: '<', version: at([0, 0, 0], [0]) }] : []; // none, or all
  }
  switch (operator) {
    case '^': {
      const leading = parts.findIndex((part) => part !== 0);
      return [from, below(leading < 0 ? parts.length : leading + 1)];
    }
    case '~':
    case '~>':
      return [from, below(Math.min(parts.length, 2))];
    case '<':
      // `<1.2` is below every 1.2, its pre-releases too.
      return [{ operator: '<', version: parts.length === 3 ? floor(given) : at(parts, [0]) }];
    case '>=':
      return [from];
    case '>':
      return parts.length === 3
        ? [{ operator: '>', version: floor(given) }]
        : [{ operator: '>=', version: at([...parts.slice(0, -1), (parts.at(-1) as number) + 1]) }];
    case '<=':
      return upTo(given);
    default:
      return parts.length === 3 ? [{ operator: '=', version: floor(given) }] : [from, below(parts.length)];
  }
}

/** Whether a version is in a range. */
export function satisfies(version: Version, range: Range): boolean {
  return range.some((set) => {
    if (!set.every((comparator) => holds(version, comparator))) return false;
    if (version.pre.length === 0) return true;
    return set.some(
      ({ version: named }) =>
        named.pre.length > 0 &&
        !(named.pre.length === 1 && named.pre[0] === 0 && isBound(set, named)) &&
        named.major === version.major &&
        named.minor === version.minor &&
        named.patch === version.patch,
    );
  });
}

/** Whether it is an upper end that was made up here: `<2.0.0-0` of `^1`. It names no pre-release. */
function isBound(set: readonly Comparator[], named: Version): boolean {
  return set.some(({ operator, version }) => operator === '<' && version === named);
}

function holds(version: Version, { operator, version: other }: Comparator): boolean {
  const order = compareVersions(version, other);
  switch (operator) {
    case '<':
      return order < 0;
    case '<=':
      return order <= 0;
    case '>':
      return order > 0;
    case '>=':
      return order >= 0;
    default:
      return order === 0;
  }
}
