// Looks that each translated page has the headings and, to the byte, the code blocks of its English source, and that it was made
// from that source as it stands: its last line carries the hash. A page that is translated in part has the first headings of its
// source, and the hash is that of this part.
//
//   node scripts/translations.mjs           looks; fails where a page is behind
//   node scripts/translations.mjs --write   stamps the pages whose headings and code blocks agree: the prose was looked at

import { createHash } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';

/** The page, its source, and whether all of it is translated. */
const PAGES = [
  ['README.zh-CN.md', 'README.md', true],
  ['docs/nestjs.zh-CN.md', 'docs/nestjs.md', false],
  ['docs/midway.zh-CN.md', 'docs/midway.md', false],
];
const STAMP = /\n<!-- (\S+), sha256 ([0-9a-f]{16}) -->\n$/;
const write = process.argv.includes('--write');

/** The sections of a page: each its text, the level of its heading, and its code blocks. */
function sections(text) {
  const found = [{ level: 0, text: '', code: [] }];
  let fence;
  for (const line of text.split(/(?<=\n)/)) {
    const [, marks] = /^(```+)/.exec(line) ?? [];
    const [, hashes] = fence === undefined ? (/^(#+) /.exec(line) ?? []) : [];
    if (hashes) found.push({ level: hashes.length, text: '', code: [] });
    const section = found.at(-1);
    section.text += line;
    if (fence === undefined && marks) {
      fence = marks;
      section.code.push(line);
    } else if (fence !== undefined) {
      section.code[section.code.length - 1] += line;
      if (line.trimEnd() === fence) fence = undefined;
    }
  }
  return found;
}

/** What is wrong with a page; stamps it where it is asked for and may be. */
function look(page, source, isWhole) {
  const text = readFileSync(page, 'utf8');
  const body = text.replace(STAMP, '\n');
  const made = sections(body);
  const all = sections(readFileSync(source, 'utf8'));
  const part = all.slice(0, made.length);
  if (isWhole ? all.length !== made.length : all.length < made.length) {
    return [`it has ${made.length - 1} headings, ${source} has ${all.length - 1}`];
  }
  const wrong = part.flatMap((section, i) => {
    const name = section.text.split('\n', 1)[0] || 'the beginning';
    if (section.level !== made[i].level)
      return [`heading ${i} is of level ${made[i].level}, not ${section.level}: ${name}`];
    return section.code.join('') === made[i].code.join('') ? [] : [`its code is not that of the source: ${name}`];
  });
  if (wrong.length > 0) return wrong;
  const hash = createHash('sha256')
    .update(part.map((section) => section.text).join(''))
    .digest('hex')
    .slice(0, 16);
  const [, of, was] = STAMP.exec(text) ?? [];
  if (of === source && was === hash) return [];
  if (!write)
    return [`${source} has changed since: translate what changed, then node scripts/translations.mjs --write`];
  writeFileSync(page, `${body.trimEnd()}\n\n<!-- ${source}, sha256 ${hash} -->\n`);
  console.log(`${page}: stamped ${hash}`);
  return [];
}

for (const [page, source, isWhole] of PAGES) {
  for (const problem of look(page, source, isWhole)) {
    console.error(`${page}: ${problem}`);
    process.exitCode = 1;
  }
}
