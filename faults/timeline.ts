/**
 * The history of a fault run as a picture (SVG): a lane for each process and for the servers, time from left to right.
 * Faults are shaded; bars are registrations, stale watchers and terms; red marks are violations, which say more under the
 * pointer.
 */

import type { Violation } from './check.js';
import type { Entry, Fault, Time } from './history.js';
import { type Term, termsOf } from './rules/one-holder.js';
import { clock, type Life, of, type Registration, type Story, storyOf, truthsWithin } from './story.js';
import type { Stretch } from './windows.js';

const LABELS = 150;
const WIDTH = 1500;
const RIGHT = 24;
const LANE = 30;
const BAR = 9;
const ROW = 18;
const SERVERS = 'servers';

/** Told apart by people who do not see red and green, and on white and on black (after Okabe and Ito). */
const COLOURS = ['#56b4e9', '#cc79a7', '#0072b2', '#b8a800', '#8c6bb1', '#a6761d', '#e69f00', '#5f9ea0'];

const STOOD_STILL = 'the machine stood still';
const STILL = 'fill="#808080" fill-opacity="0.35"';

const STYLE = `
    svg { --paper: #ffffff; --ink: #1b1f24; --faint: #8a929b; --quiet: #5b636c; --line: #d9dde2; --held: #009e73; --gone: #d55e00;
      --stale: #f0b400; --term: #4c6fd8; --bad: #e3001b; color-scheme: light dark; background: var(--paper) }
    @media (prefers-color-scheme: dark) {
      svg { --paper: #14171b; --ink: #e8ebee; --faint: #838c96; --quiet: #a8b0b9; --line: #343a41; --held: #1fc797; --gone: #ff8a3c;
        --stale: #ffd24d; --term: #86a3ff; --bad: #ff4d5e }
    }
    text { font: 13px system-ui, sans-serif; fill: var(--ink) }
    .small { font-size: 12px; fill: var(--quiet) }
    .paper { fill: var(--paper) }
    .line { stroke: var(--line); stroke-width: 1 }
    .life { stroke: var(--faint); stroke-width: 1.5 }
    .death { stroke: var(--ink); stroke-width: 2 }
    .held { fill: var(--held) } .gone { fill: var(--gone) } .stale { fill: var(--stale) }
    .term { fill: var(--term); stroke: var(--paper); stroke-width: 0.5 }
    .violation { fill: var(--bad); stroke: var(--paper); stroke-width: 1 }
    .since { stroke: var(--bad); stroke-width: 3 }`;

export function timeline(history: readonly Entry[], violations: readonly Violation[]): string {
  return new Picture(readable(history), violations).svg();
}

/** A history that is cut short at its front is drawn as well: somebody wants to see what is there. */
function readable(history: readonly Entry[]): Story {
  const timed = history.filter(({ at }) => Number.isFinite(at));
  const begin: Entry = {
    ...{ kind: 'begin', at: timed[0]?.at ?? 0, seed: 0, backend: 'etcd', minutes: 0 },
    ...{ ttlMs: 0, repairMs: 0, removalMs: 0, deliveryMs: 0, staleMs: 0 },
  };
  return storyOf(of(timed, 'begin').length > 0 ? timed : [begin, ...timed]);
}

class Picture {
  readonly #lanes: readonly string[];
  readonly #kinds: readonly string[];
  readonly #allTerms: readonly (readonly [string, readonly Term[]])[];
  readonly #from: Time;
  readonly #to: Time;
  readonly #top: number;

  constructor(
    private readonly story: Story,
    private readonly violations: readonly Violation[],
  ) {
    const processes = [...new Set(story.lives.map(({ who }) => who))].sort((a, b) =>
      a.localeCompare(b, 'en', { numeric: true }),
    );
    const others = violations.map(({ who }) => who).filter((who) => !processes.includes(who));
    this.#lanes = [SERVERS, ...processes, ...new Set(others.filter((who) => who !== SERVERS))];
    this.#kinds = [...new Set(story.faults.map(({ what }) => what))].sort();
    this.#allTerms = [...termsOf(story)];
    this.#from = story.begin.at;
    this.#to = Math.max(story.end, ...story.lives.map(({ to }) => to), this.#from + 1000);
    this.#top = 64 + this.#legendRows() * ROW;
  }

  svg(): string {
    const { seed, backend } = this.story.begin;
    const count = this.violations.length;
    const title = `Fault run of ${backend}, seed ${seed}: ${count === 0 ? 'no violations' : `${count} violations`}`;
    const height = this.#top + this.#lanes.length * LANE + 40;
    const lines = [
      `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" role="img">`,
      `<title>${text(title)}</title>`,
      `<style>${STYLE}\n  </style>`,
      `<rect class="paper" width="${WIDTH}" height="${height}"/>`,
      `<text x="12" y="26" font-weight="bold">${text(title)}</text>`,
      ...this.#legend(),
      ...this.#axis(),
      ...this.#lanes.flatMap((who) => this.#lane(who)),
      ...this.#hiccups(),
      ...this.violations.map((violation) => this.#mark(violation)),
      '</svg>',
    ];
    return `${lines.join('\n')}\n`;
  }

  #x(time: Time): number {
    const clamped = Math.min(Math.max(time, this.#from), this.#to);
    const share = (clamped - this.#from) / (this.#to - this.#from);
    return Math.round((LABELS + share * (WIDTH - LABELS - RIGHT)) * 10) / 10;
  }

  /** The middle of the lane. */
  #y(who: string): number {
    return this.#top + this.#lanes.indexOf(who) * LANE + LANE / 2;
  }

  #rect({ at, until }: Stretch, y: number, height: number, attributes: string, title: string, least = 1): string {
    const width = Math.max(least, this.#x(until) - this.#x(at)).toFixed(1);
    return `<rect x="${this.#x(at)}" y="${y}" width="${width}" height="${height}" ${attributes}><title>${text(title)}</title></rect>`;
  }

  #colour(what: string): string {
    return COLOURS[this.#kinds.indexOf(what) % COLOURS.length] as string;
  }

  #entries(): { mark: string; says: string }[] {
    const box = (attributes: string) => `<rect y="-10" width="14" height="12" ${attributes}/>`;
    return [
      ...this.#kinds.map((what) => ({ mark: box(`fill="${this.#colour(what)}" fill-opacity="0.6"`), says: what })),
      ...(this.story.hiccups.length === 0 ? [] : [{ mark: box(STILL), says: STOOD_STILL }]),
      { mark: box('class="held"'), says: 'registered' },
      { mark: box('class="gone"'), says: 'not in the registry' },
      { mark: box('class="stale"'), says: 'watcher is stale' },
      { mark: box('class="term"'), says: 'holds or leads' },
      { mark: '<path class="death" d="M3 -8l8 8m0 -8l-8 8"/>', says: 'died' },
      { mark: '<path class="violation" d="M0 -10h14l-7 12z"/>', says: 'violation' },
    ];
  }

  /** The columns of the legend are as wide as the longest word needs. */
  #columns(): { width: number; count: number } {
    const longest = Math.max(...this.#entries().map(({ says }) => [...says].length));
    const width = Math.min(Math.max(longest * 7.5 + 40, 120), WIDTH - 24);
    return { width, count: Math.max(1, Math.floor((WIDTH - 24) / width)) };
  }

  #legendRows(): number {
    return Math.ceil(this.#entries().length / this.#columns().count);
  }

  #legend(): string[] {
    const { width, count } = this.#columns();
    return this.#entries().map(({ mark, says }, i) => {
      const [x, y] = [12 + (i % count) * width, 50 + Math.floor(i / count) * ROW];
      return `<g transform="translate(${x.toFixed(1)} ${y})">${mark}<text x="20">${text(says)}</text></g>`;
    });
  }

  #axis(): string[] {
    const seconds = (this.#to - this.#from) / 1000;
    const step = [1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600].find((step) => seconds / step <= 20) ?? 7200;
    const bottom = this.#top + this.#lanes.length * LANE;
    const ticks = Array.from({ length: Math.floor(seconds / step) + 1 }, (_, i) => i * step).map((second) => {
      const x = this.#x(this.#from + second * 1000);
      return `<line class="line" x1="${x}" x2="${x}" y1="${this.#top}" y2="${bottom}"/><text class="small" x="${x}" y="${bottom + 16}" text-anchor="middle">${second} s</text>`;
    });
    const calm = this.story.calm;
    if (calm === undefined) return ticks;
    const x = this.#x(calm);
    return [
      ...ticks,
      `<line class="life" stroke-dasharray="4 3" x1="${x}" x2="${x}" y1="${this.#top}" y2="${bottom}"/><text class="small" x="${x}" y="${bottom + 32}" text-anchor="middle">calm</text>`,
    ];
  }

  #lane(who: string): string[] {
    const y = this.#y(who);
    const lives = this.story.lives.filter((life) => life.who === who);
    const clipped = [...who].length > 20 ? `${[...who].slice(0, 19).join('')}…` : who;
    return [
      `<g class="lane"><title>${text(who)}</title>`,
      `<line class="line" x1="12" x2="${WIDTH - RIGHT}" y1="${y + LANE / 2}" y2="${y + LANE / 2}"/>`,
      `<text x="12" y="${y + 4}">${text(clipped)}</text>`,
      ...this.#faults(who),
      ...lives.flatMap((life) => this.#life(life, y)),
      '</g>',
    ];
  }

  /** A fault of the servers is plain in their lane and faint in those that it touches. */
  #faults(who: string): string[] {
    const shade = (fault: Fault, opacity: number) => {
      const { what, target, at, until } = fault;
      const title = `${what}: ${target}, ${clock(this.story, at)} to ${clock(this.story, until)}`;
      const attributes = `fill="${this.#colour(what)}" fill-opacity="${opacity}"`;
      return this.#rect(fault, this.#y(who) - LANE / 2 + 1, LANE - 2, attributes, title, 2);
    };
    return this.story.faults.flatMap((fault) => {
      if (who === SERVERS) return fault.servers || fault.touches.length === 0 ? [shade(fault, 0.6)] : [];
      return fault.touches.includes(who) ? [shade(fault, fault.servers ? 0.15 : 0.45)] : [];
    });
  }

  #hiccups(): string[] {
    const height = this.#lanes.length * LANE;
    return this.story.hiccups.map((hiccup) => this.#rect(hiccup, this.#top, height, STILL, STOOD_STILL, 2));
  }

  #life(life: Life, y: number): string[] {
    const [from, to] = [this.#x(life.from), this.#x(life.to)];
    const drawn = [`<line class="life" x1="${from}" x2="${to}" y1="${y}" y2="${y}"/>`];
    const registrations = this.story.registrations.filter((registration) => registration.life === life);
    const ids = [...new Set(registrations.map((registration) => registration.of))];
    const height = Math.max(2, BAR / Math.max(1, ids.length));
    for (const registration of registrations) {
      drawn.push(...this.#registration(registration, y - BAR / 2 + ids.indexOf(registration.of) * height, height));
    }
    drawn.push(...this.#stale(life, y - BAR / 2), ...this.#terms(life, y));
    if (life.died !== undefined && life.died.how !== 'left') {
      const says = text(`${life.died.how} at ${clock(this.story, life.died.at)}`);
      drawn.push(`<path class="death" d="M${to - 4} ${y - 4}l8 8m0 -8l-8 8"><title>${says}</title></path>`);
    }
    return drawn;
  }

  /** What the reads say, from read to read. */
  #registration({ of, from, to }: Registration, y: number, height: number): string[] {
    const stretches: { at: Time; until: Time; held: boolean }[] = [{ at: from, until: to, held: true }];
    for (const { at, numbers } of truthsWithin(this.story, from, to)) {
      const last = stretches.at(-1) as { at: Time; until: Time; held: boolean };
      if (numbers.has(of) === last.held) continue;
      last.until = at;
      stretches.push({ at, until: to, held: !last.held });
    }
    return stretches
      .filter(({ at, until }) => until > at)
      .map((stretch) => {
        const says = `${of} ${stretch.held ? 'registered' : 'not in the registry'}, ${clock(this.story, stretch.at)} to ${clock(this.story, stretch.until)}`;
        return this.#rect(stretch, y, height, `class="${stretch.held ? 'held' : 'gone'}"`, says);
      });
  }

  #stale({ told, to }: Life, y: number): string[] {
    const since = new Map<string, Time>();
    const drawn: string[] = [];
    const close = (name: string, until: Time) => {
      const at = since.get(name);
      if (at === undefined) return;
      since.delete(name);
      const says = `${name} stale, ${clock(this.story, at)} to ${clock(this.story, until)}`;
      drawn.push(this.#rect({ at, until }, y, BAR, 'class="stale"', says, 2));
    };
    for (const entry of told) {
      if (entry.kind !== 'list' && entry.kind !== 'stale' && entry.kind !== 'fresh') continue;
      const stale = entry.kind === 'stale' || (entry.kind === 'list' && entry.stale);
      if (!stale) close(entry.name, entry.at);
      else if (!since.has(entry.name)) since.set(entry.name, entry.at);
    }
    for (const name of [...since.keys()]) close(name, to);
    return drawn;
  }

  #terms(life: Life, y: number): string[] {
    return this.#allTerms.flatMap(([of, terms], i) => {
      // Locks and elections stand in rows of their own, so that a lock does not hide an election.
      const height = Math.max(4, (LANE - 8) / this.#allTerms.length);
      return terms
        .filter((term) => term.life === life)
        .map(({ held, until, token }) => {
          const says = `${of}, token ${token}, ${clock(this.story, held)} to ${clock(this.story, until)}`;
          return this.#rect({ at: held, until }, y - LANE / 2 + 4 + i * height, height - 1, 'class="term"', says, 2);
        });
    });
  }

  #mark({ rule, at, until, who, says }: Violation): string {
    const [x, y] = [this.#x(at), this.#y(who)];
    const top = y - LANE / 2;
    const since =
      until === undefined || until <= at
        ? ''
        : `<line class="since" x1="${x}" x2="${this.#x(until)}" y1="${top + 2}" y2="${top + 2}"/>`;
    const path = `<path class="violation" d="M${x - 7} ${top}h14l-7 13z"/>`;
    return `<g class="violation"><title>${text(`${rule}, ${clock(this.story, at)}: ${says}`)}</title>${since}${path}</g>`;
  }
}

/** What XML can hold at all, with what it gives a meaning escaped. */
function text(value: string): string {
  return (
    value
      // biome-ignore lint/suspicious/noControlCharactersInRegex: XML forbids them, even escaped
      .replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]|\p{Surrogate}/gu, '\ufffd')
      .replace(/&/g, '&amp;')
      .replace(/</g, '&lt;')
      .replace(/>/g, '&gt;')
      .replace(/"/g, '&quot;')
      .replace(/'/g, '&#39;')
  );
}
