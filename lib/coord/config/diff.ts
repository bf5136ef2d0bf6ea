/** What differs between two texts, line by line. Pure. */

/** More lines than this are not compared one by one. */
const LINES_MOST = 2000;

/** The lines of a value: JSON laid out, so that a change of a field is one of a line. */
function linesOf(text: string | null): string[] {
  if (text === null) return [];
  let shown = text;
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value === 'object' && value !== null) shown = JSON.stringify(value, null, 2);
  } catch {
    // It is text.
  }
  return shown.split('\n');
}

/**
 * What makes `after` of `before`: each line with ` ` (the same), `-` (only before) or `+` (only after) in front of it; empty where
 * they say the same.
 */
export function difference(before: string | null, after: string | null): string {
  const [old, now] = [linesOf(before), linesOf(after)];
  if (old.length === now.length && old.every((line, place) => line === now[place])) return '';
  let [head, tail] = [0, 0];
  while (head < old.length && head < now.length && old[head] === now[head]) head++;
  while (
    tail < old.length - head &&
    tail < now.length - head &&
    old[old.length - 1 - tail] === now[now.length - 1 - tail]
  )
    tail++;
  const same = (lines: string[]) => lines.map((line) => ` ${line}`);
  const middle = between(old.slice(head, old.length - tail), now.slice(head, now.length - tail));
  return [...same(old.slice(0, head)), ...middle, ...same(old.slice(old.length - tail))].join('\n');
}

function between(old: readonly string[], now: readonly string[]): string[] {
  const all = (sign: string, lines: readonly string[]) => lines.map((line) => `${sign}${line}`);
  if (old.length > LINES_MOST || now.length > LINES_MOST) return [...all('-', old), ...all('+', now)];
  // common[i][j]: how many lines the rests from i and from j have in common at the most.
  const width = now.length + 1;
  const common = new Uint16Array((old.length + 1) * width);
  const at = (i: number, j: number) => common[i * width + j] as number;
  for (let i = old.length - 1; i >= 0; i--) {
    for (let j = now.length - 1; j >= 0; j--) {
      common[i * width + j] = old[i] === now[j] ? at(i + 1, j + 1) + 1 : Math.max(at(i + 1, j), at(i, j + 1));
    }
  }
  const lines: string[] = [];
  let [i, j] = [0, 0];
  while (i < old.length && j < now.length) {
    if (old[i] === now[j]) {
      lines.push(` ${old[i++]}`);
      j++;
    } else if (at(i + 1, j) >= at(i, j + 1)) lines.push(`-${old[i++]}`);
    else lines.push(`+${now[j++]}`);
  }
  return [...lines, ...all('-', old.slice(i)), ...all('+', now.slice(j))];
}
