// Pieces of TypeScript.

import { PROSE } from './prose.mjs';

const said = new Set();

/** The doc comment that prose.mjs has of a name, at the width of the code around it. */
export function doc(name) {
  const text = PROSE[name];
  if (text === undefined) return '';
  said.add(name);
  return comment(text, name.includes('.') ? 2 : 0);
}

/** Fails when prose.mjs speaks of what has not been written. */
export function nothingUnsaid() {
  const left = Object.keys(PROSE).filter((name) => !said.has(name));
  if (left.length > 0) throw new Error(`prose.mjs speaks of what etcd does not have: ${left.join(', ')}`);
}

/** A doc comment of lines up to 120 wide, `indent` included. */
export function comment(text, indent = 0) {
  if (indent + text.length + '/**  */'.length <= 120) return `/** ${text} */\n`;
  const lines = [''];
  for (const word of text.split(' ')) {
    if (indent + ' * '.length + lines.at(-1).length + 1 + word.length > 120) lines.push('');
    lines[lines.length - 1] += lines.at(-1) === '' ? word : ` ${word}`;
  }
  return `/**\n${lines.map((line) => ` * ${line}`).join('\n')}\n */\n`;
}

/** Imports those of `names` that `text` uses. */
export function importsOf(text, names, file) {
  const used = names.filter((name) => new RegExp(`\\b${name}\\b`).test(text));
  return used.length === 0 ? '' : `import type { ${used.join(', ')} } from './${file}.js';\n`;
}
