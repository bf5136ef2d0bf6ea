/** The command: reads what is wanted from the environment, runs, says what was found. */
import { writeFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { check } from './check.js';
import { read, run } from './conduct.js';
import type { Entry } from './history.js';
import { report } from './report.js';
import type { Backend } from './schedule.js';
import { type Judged, summary } from './summary.js';
import { timeline } from './timeline.js';

const BACKENDS: readonly Backend[] = ['etcd', 'consul', 'zookeeper'];
/** Where the histories and timelines of the latest run of each seed stay. */
const KEPT = fileURLToPath(new URL('../build/faults', import.meta.url));
const MINUTES = 3;
const SHORTEST = 1;

interface Wanted {
  readonly backend: Backend;
  readonly seeds: readonly number[];
  readonly minutes: number;
  /** Those who hold locks and read configuration do it as nobody should: a run that must find it. */
  readonly naive: boolean;
}

class Usage extends Error {}

/** `SEED=7` or `SEED=1-10`; without one, a seed that nobody has chosen. */
function seedsOf(text: string | undefined): number[] {
  if (!text) return [1 + Math.floor(Math.random() * 999_999)];
  const [first, last = first, ...more] = text.split('-').map(Number);
  if (
    more.length > 0 ||
    !Number.isSafeInteger(first) ||
    !Number.isSafeInteger(last) ||
    (first as number) > (last as number)
  ) {
    throw new Usage(`SEED=${text}: give a whole number, such as SEED=7, or a range, such as SEED=1-10`);
  }
  return Array.from({ length: (last as number) - (first as number) + 1 }, (_, i) => (first as number) + i);
}

export function wantedOf(env: NodeJS.ProcessEnv): Wanted {
  const minutes = Number(env.MINUTES || MINUTES);
  if (!(minutes >= SHORTEST && minutes <= 24 * 60)) {
    throw new Usage(
      `MINUTES=${env.MINUTES}: give a number from ${SHORTEST} on; below, nothing is left beside the repairs`,
    );
  }
  const backend = BACKENDS.find((known) => known === (env.BACKEND || BACKENDS[0]));
  if (!backend) throw new Usage(`BACKEND=${env.BACKEND}: give one of ${BACKENDS.join(', ')}`);
  return { backend, seeds: seedsOf(env.SEED), minutes, naive: Boolean(env.NAIVE) };
}

/** The exit code: 0 when nothing was violated. With folders of earlier runs, these are judged anew and nothing is run. */
export async function main(env: NodeJS.ProcessEnv, kept: readonly string[] = []): Promise<number> {
  if (kept.length > 0)
    return verdict(kept.map((folder) => judge(`node faults/run.mjs ${folder}`, folder, read(folder))));
  let wanted: Wanted;
  try {
    wanted = wantedOf(env);
  } catch (error) {
    if (!(error instanceof Usage)) throw error;
    console.error(error.message);
    return 2;
  }
  const { backend, seeds, minutes, naive } = wanted;
  const runs: Judged[] = [];
  for (const seed of seeds) {
    const again = `make faults BACKEND=${backend} SEED=${seed} MINUTES=${minutes}${naive ? ' NAIVE=1' : ''}`;
    console.log(`== ${again}`);
    const folder = join(KEPT, `${backend}-${seed}`);
    const say = (line: string) => console.log(line);
    runs.push(judge(again, folder, await run({ backend, seed, minutes, folder, naive, say })));
  }
  return verdict(runs);
}

function judge(what: string, folder: string, history: readonly Entry[]): Judged {
  const violations = check(history);
  const svg = join(folder, 'timeline.svg');
  writeFileSync(svg, timeline(history, violations));
  console.log(`\n${report(history, violations)}\n\ntimeline: ${relative('', svg)}`);
  if (violations.length > 0) console.log(`again: ${what}`);
  return { history, violations };
}

function verdict(runs: readonly Judged[]): number {
  const bad = runs.filter(({ violations }) => violations.length > 0).length;
  console.log(`\n${summary(runs)}\n\n${runs.length} runs, ${bad} with violations`);
  return bad === 0 ? 0 : 1;
}
