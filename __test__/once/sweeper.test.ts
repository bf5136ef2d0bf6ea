// What is over in coord is deleted in passing, and nothing else is.
import { coordOnce } from 'rollcall/once';
import { expect, test, vi } from 'vitest';
import { Sweeper } from '../../lib/once/sweeper.js';
import { client, until } from '../coord/kit.js';
import { startEtcd } from '../support/etcd.js';
import { gate, onceOf } from './kit.js';

const HOUR_MS = 3_600_000;
const FOLDERS = 4096;
const CLAIMS = 16;

test('records that are over go, a folder for sixteen claims; those that count stay, and so does what runs', async (finish) => {
  const server = await startEtcd();
  finish.onTestFinished(() => server.close());
  const coord = await client(finish, server.url);
  const once = onceOf(finish, coordOnce(coord));
  const [over, counts] = [100, 20];
  for (let i = 0; i < over; i++) await once.do(`over ${i}`, 1000, () => {});
  for (let i = 0; i < counts; i++) await once.do(`counts ${i}`, 4 * HOUR_MS, () => {});
  const { open: end, passed: ended } = gate();
  const running = once.do('runs', 1000, () => ended);
  await until('its run', async () => (await once.inspect('runs'))?.state === 'running');
  const looks: string[] = [];
  const config = new Proxy(coord.config, {
    get(target, name) {
      if (name !== 'list') return (target[name as 'raw'] as () => unknown).bind(target);
      return (prefix: string) => {
        looks.push(prefix);
        return target.list(prefix);
      };
    },
  });
  // A day more for what runs: its lease says that it does.
  const clock = vi
    .spyOn(Date, 'now')
    .mockImplementation(() => performance.timeOrigin + performance.now() + 2 * HOUR_MS);
  finish.onTestFinished(() => clock.mockRestore());
  const sweeper = new Sweeper(config);
  for (let look = 1; look <= FOLDERS; look++) {
    for (let claim = 1; claim < CLAIMS; claim++) sweeper.tick();
    expect(looks.length).toBe(look - 1);
    sweeper.tick();
    while (sweeper.isBusy) await new Promise((resolve) => setImmediate(resolve));
  }
  expect(new Set(looks).size).toBe(FOLDERS);
  const left = (await coord.config.list('/once/')).map(({ key }) => key);
  expect(left.filter((key) => key.includes('over '))).toEqual([]);
  expect(left.filter((key) => key.includes('counts ')).length).toBe(counts);
  expect(left.filter((key) => key.includes('runs')).length).toBe(1);
  clock.mockImplementation(() => performance.timeOrigin + performance.now() + 48 * HOUR_MS);
  const folder = left.find((key) => key.endsWith('runs'))?.slice(0, '/once/abc/'.length) as string;
  const round = async () => {
    looks.length = 0;
    while (!looks.includes(folder)) {
      for (let claim = 1; claim <= CLAIMS; claim++) sweeper.tick();
      while (sweeper.isBusy) await new Promise((resolve) => setImmediate(resolve));
    }
  };
  await round();
  expect((await once.inspect('runs'))?.state).toBe('running'); // over by its time, and alive
  end();
  expect(await running).toBe('ran');
});
