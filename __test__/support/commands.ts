// Programs of the tests that obey: a line of JSON for a command, and a line with its `id` for the answer.
import type { Script } from './process.js';

export interface Answer {
  id?: number;
  ok?: boolean;
  error?: string;
}

/** Gives commands to a program, and their answers; throws with the error of one that failed. `who` is the program, for errors. */
export function asker<Line extends Answer>(
  script: Script<Line>,
  who: string,
): (op: string, more?: object) => Promise<Line & { id: number }> {
  let count = 0;
  return async (op, more = {}) => {
    const id = ++count;
    script.send({ id, op, ...more });
    const answer = await script.line((line) => line.id === id, { what: `the answer to "${op}"` });
    if (!answer.ok) throw new Error(`${who}'s "${op}" failed: ${answer.error}`);
    return { ...answer, id };
  };
}
