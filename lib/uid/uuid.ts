/** UUIDs of version 7, each greater than the one before it in its thread: RFC 9562, method 1 of section 6.2. */

/** Loaded at the first use: they take longer than all the rest of the entry point. */
const crypto = () => require('node:crypto') as typeof import('node:crypto');
const shape = () => require('../common/shape.js') as typeof import('../common/shape.js');

/** A counter of 26 bits stands behind the time: 12 before the variant, 14 after it. It begins at random in its lower half. */
const COUNTER_MOST = 2 ** 26 - 1;
const LOWER_HALF = 2 ** 25 - 1;
const VARIANT = 0x8000;
const HALVES = 2048;

let hex: string[] | undefined;
/** Random halves of words that were not used yet. */
let pool: Uint16Array | undefined;
let left = 0;

let last = -1;
let counter = 0;
/** The digits of the time. */
let head = '';

function table(): string[] {
  hex = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, '0'));
  return hex;
}

function random(): number {
  if (left === 0) {
    pool ??= new Uint16Array(HALVES);
    crypto().randomFillSync(pool);
    left = HALVES;
  }
  return (pool as Uint16Array)[--left] as number;
}

/**
 * A UUID of version 7: the millisecond, a counter, 48 bits of chance. It is greater than each before it in this thread, also within a millisecond, and when the
 * clock is set back: then the time stands until the clock is there again. Those of other threads and processes are in order by their milliseconds. It asks nobody.
 */
export function uuidv7(): string {
  const now = Math.max(0, Date.now()); // there are none of the time before 1970
  if (now > last) {
    enter(now);
  } else if (++counter > COUNTER_MOST) {
    enter(last + 1);
  }
  const digits = hex ?? table();
  const high = counter >>> 14;
  const low = (counter & 0x3fff) | VARIANT;
  const [a, b, c] = [random(), random(), random()];
  return (
    head +
    (0x70 | (high >>> 8)).toString(16) +
    digits[high & 0xff] +
    '-' +
    digits[low >>> 8] +
    digits[low & 0xff] +
    '-' +
    digits[a >>> 8] +
    digits[a & 0xff] +
    digits[b >>> 8] +
    digits[b & 0xff] +
    digits[c >>> 8] +
    digits[c & 0xff]
  );
}

function enter(ms: number): void {
  last = ms;
  counter = ((random() << 16) | random()) & LOWER_HALF;
  const time = ms.toString(16).padStart(12, '0');
  head = `${time.slice(0, 8)}-${time.slice(8)}-`;
}

const FORM = /^[\da-f]{8}-[\da-f]{4}-7[\da-f]{3}-[89ab][\da-f]{3}-[\da-f]{12}$/i;

/** When a UUID of version 7 was made. @throws `ERR_INVALID_ARGUMENT`, also for one of another version. */
export function parseUuidv7(uuid: string): { readonly at: Date } {
  if (typeof uuid !== 'string') throw shape().invalid('uuid', `expected a string, got ${shape().kindOf(uuid)}`);
  if (!FORM.test(uuid)) throw shape().invalid('uuid', 'expected a UUID of version 7');
  return { at: new Date(Number.parseInt(uuid.slice(0, 8) + uuid.slice(9, 13), 16)) };
}
