// Looks that each row "| question | `file` | `symbol` |" of a page names a file of the repository in which the symbol stands.
import { readFileSync } from 'node:fs';

const [page] = process.argv.slice(2);
const rows = [...readFileSync(page, 'utf8').matchAll(/^\| (.+\?) \| `([^`]+)` \| `([^`]+)` \|$/gm)];
const text = (file) => {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return '';
  }
};
const escaped = (symbol) => symbol.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
const wrong = rows.filter(([, , file, symbol]) => !new RegExp(`\\b${escaped(symbol)}\\b`).test(text(file)));
for (const [, question, file, symbol] of wrong)
  console.error(`${page}: "${question}" is not answered by ${symbol} in ${file}`);
if (rows.length < 12) console.error(`${page}: ${rows.length} questions are answered, of at least 12`);
if (wrong.length > 0 || rows.length < 12) process.exit(1);
