/** What subjects have had, one number each. No call looks at more than a few of them, however many there are. */

/** So many parts, so that one of them that grows moves a part of the subjects, not all. A power of two. */
const PARTS = 64;
/** How many subjects a new one looks at for one that is forgotten: more than one, so that what is due goes faster than new ones come. */
const SWEPT = 4;
/** How many are looked at where there is no room. */
const SWEPT_FOR_ROOM = 8;

/** A part of the subjects. */
class Part {
  readonly places = new Map<string, number>();
  /** By place: when all is back, on the clock of the meter. Never, where nobody is. */
  full = new Float64Array(4);
  readonly names: (string | undefined)[] = [];
  readonly free: number[] = [];
  hand = 0;

  /** Looks at the next subject in turn, and forgets it if all is back. @returns whether it was forgotten. */
  sweep(refilled: number): boolean {
    const { names, full } = this;
    if (names.length === 0) return false;
    if (this.hand >= names.length) this.hand = 0;
    const place = this.hand++;
    if ((full[place] as number) > refilled) return false;
    full[place] = Number.POSITIVE_INFINITY;
    this.places.delete(names[place] as string);
    names[place] = undefined;
    this.free.push(place);
    return true;
  }

  add(subject: string, full: number): void {
    const place = this.free.pop() ?? this.names.length;
    if (place === this.full.length) {
      const grown = new Float64Array(place * 2);
      grown.set(this.full);
      this.full = grown;
    }
    this.places.set(subject, place);
    this.names[place] = subject;
    this.full[place] = full;
  }
}

/**
 * The subjects of a rule. Of each it is known when all that it has had is back, on a clock that counts tokens instead of time: so a rule
 * that changes leaves what was consumed, and costs nothing for each subject.
 */
export class Subjects {
  readonly #parts: (Part | undefined)[] = new Array(PARTS).fill(undefined);
  readonly #max: number;
  #hand = 0;
  /** Where `get()` was. */
  #index = 0;
  #place: number | undefined;
  size = 0;

  constructor(max: number) {
    this.#max = max;
  }

  /** Whether there is so much room again that more is to come. */
  get hasRoom(): boolean {
    return this.size < this.#max * 0.9;
  }

  /** When all is back of a subject; 0 of one that is not known. `set()` is about the same one. */
  get(subject: string): number {
    const index = partOf(subject);
    const part = this.#parts[index];
    const place = part?.places.get(subject);
    this.#index = index;
    this.#place = place;
    return place === undefined ? 0 : ((part as Part).full[place] as number);
  }

  /**
   * Sets that of the subject that `get()` was asked for last.
   *
   * @param refilled now, on the same clock.
   * @returns whether there was room for it.
   */
  set(subject: string, full: number, refilled: number): boolean {
    const part = this.#parts[this.#index];
    if (this.#place !== undefined) {
      (part as Part).full[this.#place] = full;
      return true;
    }
    if (part) for (let i = 0; i < SWEPT; i++) if (part.sweep(refilled)) this.size--;
    if (this.size >= this.#max && !this.#makeRoom(refilled)) return false;
    const home = part ?? new Part();
    this.#parts[this.#index] = home;
    home.add(subject, full);
    this.size++;
    return true;
  }

  #makeRoom(refilled: number): boolean {
    for (let looked = 0, parts = 0; looked < SWEPT_FOR_ROOM && parts <= PARTS; ) {
      const part = this.#parts[this.#hand];
      if (part && part.places.size > 0) {
        looked++;
        if (part.sweep(refilled)) {
          this.size--;
          return true;
        }
        if (part.hand < part.names.length) continue;
      }
      this.#hand = (this.#hand + 1) % PARTS;
      parts++;
    }
    return false;
  }
}

/** By a few of its characters: it need not be even, and must be fast. */
function partOf(subject: string): number {
  const { length } = subject;
  const mixed = subject.charCodeAt(length - 1) * 31 + subject.charCodeAt(length >> 1) * 17;
  return (mixed + (length > 1 ? subject.charCodeAt(length - 2) * 7 : 0) + length) & (PARTS - 1);
}
