// A last-known-good file is given back as it was written, or refused by its name.

import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  existsSync,
  linkSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { LastGoodFile } from '../../lib/common/last-good.js';
import { temporaryFolder } from '../support/process.js';

interface Finish {
  onTestFinished(fn: () => unknown): void;
}

function place({ onTestFinished }: Finish): { folder: string; path: string } {
  const folder = temporaryFolder();
  onTestFinished(() => folder.remove());
  return { folder: folder.path, path: join(folder.path, 'deep', 'a.last-good') };
}

const TEXT = JSON.stringify({ grüße: '世界\n', list: Array.from({ length: 2000 }, (_, n) => n) });

async function problem(path: string): Promise<string> {
  const error = await new LastGoodFile(path).read().then(
    (text) => new Error(`it was read: ${text?.slice(0, 20)}`),
    (error: Error) => error,
  );
  expect(error.message.startsWith(`the last-known-good file ${path}: `), error.message).toBe(true);
  return error.message.slice(`the last-known-good file ${path}: `.length);
}

test('what was written is read, by its owner alone', async (finish) => {
  const { path, folder } = place(finish);
  expect(await new LastGoodFile(path).read()).toBeUndefined();
  for (const text of [TEXT, '', 'x']) {
    await new LastGoodFile(path).write(text);
    expect(await new LastGoodFile(path).read()).toBe(text);
  }
  expect([statSync(path).mode & 0o777, statSync(join(folder, 'deep')).mode & 0o777]).toEqual([0o600, 0o700]);
  expect(readdirSync(join(folder, 'deep'))).toEqual(['a.last-good']);
});

test('of many at once the latest is there at the end', async (finish) => {
  const { path, folder } = place(finish);
  const file = new LastGoodFile(path);
  await Promise.all(Array.from({ length: 200 }, (_, n) => file.write(`${n}`)));
  expect(await file.read()).toBe('199');
  expect(readdirSync(join(folder, 'deep'))).toEqual(['a.last-good']);
});

test('cut off anywhere it is refused', async (finish) => {
  const { path } = place(finish);
  await new LastGoodFile(path).write('{"max":1}');
  const { size } = statSync(path);
  for (let left = size - 1; left >= 0; left--) {
    truncateSync(path, left);
    expect(await problem(path)).toMatch(/cut off/);
  }
});

test('with any one bit changed it is refused', async (finish) => {
  const { path } = place(finish);
  await new LastGoodFile(path).write('{"max":1}');
  const good = readFileSync(path);
  for (let bit = 0; bit < good.length * 8; bit++) {
    const bad = Buffer.from(good);
    bad[bit >> 3] = (bad[bit >> 3] as number) ^ (1 << (bit & 7));
    writeFileSync(path, bad);
    expect(await problem(path)).toMatch(/changed|expected version/);
  }
});

test('of another version, or too large, it is refused', async (finish) => {
  const { path } = place(finish);
  await new LastGoodFile(path).write('x');
  writeFileSync(path, readFileSync(path, 'utf8').replace('last-good 1', 'last-good 2'));
  expect(await problem(path)).toBe('expected version 1, got 2');
  truncateSync(path, 65 * 1024 * 1024);
  expect(await problem(path)).toMatch(/^expected at most 67108864 bytes, got/);
});

test('a link, a folder, a pipe is refused, and a link is not written through', async (finish) => {
  const { path, folder } = place(finish);
  const target = join(folder, 'target');
  await new LastGoodFile(target).write('of somebody else');
  mkdirSync(join(folder, 'deep'));
  symlinkSync(target, path);
  expect(await problem(path)).toBe('expected a file, got a symbolic link');
  await new LastGoodFile(path).write('own');
  expect(await new LastGoodFile(path).read()).toBe('own');
  expect(await new LastGoodFile(target).read()).toBe('of somebody else');
  rmSync(path);
  mkdirSync(path);
  expect(await problem(path)).toBe('expected a file');
  await expect(new LastGoodFile(path).write('x')).rejects.toThrow(`the last-known-good file ${path}: can't be written`);
  expect(readdirSync(join(folder, 'deep'))).toEqual(['a.last-good']);
  rmSync(path, { recursive: true });
  expect(spawnSync('mkfifo', [path]).status).toBe(0);
  expect(await problem(path)).toBe('expected a file');
});

test('one that others can write is refused', async (finish) => {
  const { path } = place(finish);
  await new LastGoodFile(path).write('x');
  chmodSync(path, 0o620);
  expect(await problem(path)).toBe('expected a file that nobody else can write (mode 0600)');
});

test.runIf(process.geteuid?.() === 0)('one of another user is refused', async (finish) => {
  const { path } = place(finish);
  await new LastGoodFile(path).write('x');
  chownSync(path, 12_345, 12_345);
  expect(await problem(path)).toBe('expected a file of the user 0, got one of 12345');
});

test('what a killed process has left is removed, and what another is writing is not', async (finish) => {
  const { path, folder } = place(finish);
  await new LastGoodFile(path).write('x');
  for (const name of ['old', 'new']) writeFileSync(`${path}.${name}.tmp`, 'half');
  linkSync(path, join(folder, 'deep', 'b.old.tmp'));
  utimesSync(`${path}.old.tmp`, new Date(0), new Date(0));
  await new LastGoodFile(path).write('y');
  const left = ['old', 'new'].map((name) => existsSync(`${path}.${name}.tmp`));
  expect([left, existsSync(join(folder, 'deep', 'b.old.tmp'))]).toEqual([[false, true], true]);
});
