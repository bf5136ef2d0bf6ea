// Looks that each relative link of a page leads to a file or folder of the repository, and its #fragment to a heading there.
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';

const pages = execFileSync('git', ['ls-files', '*.md'], { encoding: 'utf8' }).trim().split('\n');
/** Without blocks of code, and without code in a line. */
const prose = (page) =>
  readFileSync(page, 'utf8')
    .replace(/^(```+).*?^\1$/gms, '')
    .replace(/(`+)(?!`).+?\1/g, (code) => code.replace(/[[\]()]/g, ' '));

/** The fragments of the headings of a page, as GitHub makes them. */
function fragments(page) {
  const seen = new Map();
  return [...prose(page).matchAll(/^#+ (.+)$/gm)].map(([, heading]) => {
    const plain = heading.replace(/\[([^\]]*)\]\([^)]*\)/g, '$1').toLowerCase();
    const fragment = plain.replace(/[^\p{L}\p{N}\p{M}_ -]/gu, '').replaceAll(' ', '-');
    const times = seen.get(fragment) ?? 0;
    seen.set(fragment, times + 1);
    return times === 0 ? fragment : `${fragment}-${times}`;
  });
}

let links = 0;
const wrong = [];
for (const page of pages) {
  for (const [, target] of prose(page).matchAll(/\]\(([^)\s]+)\)/g)) {
    if (/^[a-z]+:/.test(target)) continue;
    links++;
    const [path, fragment] = target.split('#');
    const file = path === '' ? page : normalize(join(dirname(page), decodeURI(path)));
    if (!existsSync(file)) wrong.push(`${page}: ${target}: there is no ${file}`);
    else if (fragment && file.endsWith('.md') && !fragments(file).includes(decodeURIComponent(fragment)))
      wrong.push(`${page}: ${target}: no such heading`);
  }
}
for (const one of wrong) console.error(one);
if (links < 50) console.error(`${links} links were found, of at least 50`);
if (wrong.length > 0 || links < 50) process.exit(1);
