/** How the bits of an id are divided, and what is read from one. */

import { integer, invalid, kindOf, onlyKnown, record } from '../common/shape.js';

/** How many of the 63 bits of an id are for what, from the highest on. */
export interface Layout {
  /** The milliseconds since the epoch, from 39 to 53 bits: 41 are 69 years. */
  readonly timeBits: number;
  /** The worker id, from 1 to 22 bits: 10 are 1,024 of them. */
  readonly workerBits: number;
  /** The ids of one millisecond of one worker, from 1 to 22 bits: 12 are 4,096 of them. */
  readonly seqBits: number;
}

/** What an id is made of. */
export interface ParsedId {
  /** When it was made: by the clock of its maker, or a little later where ids were made faster than their time passed. */
  readonly at: Date;
  readonly workerId: number;
  readonly sequence: number;
}

/** The epoch of `im-infra`, and of Twitter before: 4 November 2010. */
const EPOCH = 1_288_834_974_657;
const USUAL: Layout = { timeBits: 41, workerBits: 10, seqBits: 12 };
const FIELDS = ['timeBits', 'workerBits', 'seqBits'] as const;
const BITS = 63;

/** @throws `ERR_INVALID_ARGUMENT` that names the field. */
export function layoutOf(path: string, value: unknown): Layout {
  if (value === undefined) return USUAL;
  const given = record(path, value, 'a layout');
  onlyKnown(path, given, FIELDS);
  const bits = (field: (typeof FIELDS)[number], min: number, max: number) =>
    integer(`${path}.${field}`, given[field], USUAL[field], { min, max });
  const layout = {
    timeBits: bits('timeBits', 39, 53),
    workerBits: bits('workerBits', 1, 22),
    seqBits: bits('seqBits', 1, 22),
  };
  const sum = layout.timeBits + layout.workerBits + layout.seqBits;
  if (sum !== BITS) throw invalid(path, `expected bits that add up to ${BITS}, got ${sum}`);
  return layout;
}

/** Milliseconds of the Unix epoch. @throws `ERR_INVALID_ARGUMENT`. */
export function epochOf(path: string, value: unknown, { timeBits }: Layout, now: number): number {
  if (value === undefined) return EPOCH;
  const isDate = Object.prototype.toString.call(value) === '[object Date]';
  if (!isDate && typeof value !== 'number') {
    throw invalid(path, `expected a Date or milliseconds of the Unix epoch, got ${kindOf(value)}`);
  }
  const epoch = Number(value);
  if (!Number.isSafeInteger(epoch) || epoch < 0) throw invalid(path, 'expected whole milliseconds, at least 0');
  if (epoch > now) throw invalid(path, 'expected a time that has passed: ids count from it');
  if (now - epoch >= 2 ** timeBits) throw invalid(path, `expected a time less than 2^${timeBits} milliseconds ago`);
  return epoch;
}

/** @throws `ERR_INVALID_ARGUMENT`. */
export function parsedId(id: unknown, { timeBits, workerBits, seqBits }: Layout, epoch: number): ParsedId {
  const bits = bitsOf(id);
  const at = Number(bits >> BigInt(BITS - timeBits)) + epoch;
  const low = Number(bits & ((1n << BigInt(workerBits + seqBits)) - 1n));
  return { at: new Date(at), workerId: low >>> seqBits, sequence: low & (2 ** seqBits - 1) };
}

function bitsOf(id: unknown): bigint {
  const expected = 'expected an id: a bigint, or its digits';
  let bits: bigint;
  if (typeof id === 'bigint') bits = id;
  else if (typeof id === 'string' && /^\d{1,19}$/.test(id)) bits = BigInt(id);
  else throw invalid('id', `${expected}, got ${typeof id === 'string' ? 'another text' : kindOf(id)}`);
  if (bits < 0n || bits >= 1n << BigInt(BITS)) throw invalid('id', `expected an id of ${BITS} bits`);
  return bits;
}
