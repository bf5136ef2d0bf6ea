/** The command: reads what is wanted from the environment, runs, says what was found. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { check } from './check.js';
import { run } from './conduct.js';
import { report } from './report.js';
import type { Backend } from './schedule.js';
import { timeline } from './timeline.js';

const BACKENDS: readonly Backend[] = ['etcd', 'consul', 'zookeeper'];
const MINUTES = 3;
const SHORTEST = 1;

interface Wanted {
  readonly backends: readonly Backend[];
  readonly seeds: readonly number[];
  readonly minutes: number;
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
  const named = env.BACKEND ? BACKENDS.filter((backend) => backend === env.BACKEND) : BACKENDS.slice(0, 1);
  if (named.length === 0) throw new Usage(`BACKEND=${env.BACKEND}: give one of ${BACKENDS.join(', ')}`);
  return { backends: named, seeds: seedsOf(env.SEED), minutes };
}

/** The exit code: 0 when nothing was violated. */
export async function main(env: NodeJS.ProcessEnv): Promise<number> {
  let wanted: Wanted;
  try {
    wanted = wantedOf(env);
  } catch (error) {
    if (!(error instanceof Usage)) throw error;
    console.error(error.message);
    return 2;
  }
  const found: string[] = [];
  for (const backend of wanted.backends) {
    for (const seed of wanted.seeds) {
      const again = `make faults BACKEND=${backend} SEED=${seed} MINUTES=${wanted.minutes}`;
      console.log(`== ${again}`);
      const folder = fileURLToPath(new URL(`../build/faults/${backend}-${seed}`, import.meta.url));
      const history = await run({ backend, seed, minutes: wanted.minutes, folder, say: (line) => console.log(line) });
      const violations = check(history);
      const svg = join(folder, 'timeline.svg');
      writeFileSync(svg, timeline(history, violations));
      console.log(`\n${report(history, violations)}\n\ntimeline: build/faults/${backend}-${seed}/timeline.svg`);
      if (violations.length > 0) found.push(`${again}: ${violations.length} violations`);
    }
  }
  const runs = wanted.backends.length * wanted.seeds.length;
  console.log(`== ${runs} runs, ${found.length} with violations`);
  for (const line of found) console.log(line);
  return found.length === 0 ? 0 : 1;
}
