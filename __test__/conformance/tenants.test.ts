// Two tenants of one server: a name that both have never mixes, in lists, in names, in watches, whatever they are called.

import type { Registry } from 'rollcall';
import { expect } from 'vitest';
import { forEveryBackend } from './backends.js';
import { hear, ids, sees, waitFor } from './kit.js';

const versions = (list: readonly { version: string }[] | undefined): string =>
  (list ?? []).map(({ version }) => version).join();

forEveryBackend('two tenants', (it) => {
  for (const [kind, suffix] of [
    ['of which one is called as the beginning of the other', 'b'],
    ['of which one lies within the other', '/within'],
  ] as const) {
    it(
      `${kind}`,
      async (scope) => {
        const [mine, theirs] = [await scope.connect(), await scope.neighbour(suffix)];
        const followed = (registry: Registry) => ({
          list: registry.watch('orders'),
          names: registry.watchServices(),
          shows(wanted: string, names: string): Promise<unknown> {
            const now = () => `${versions(this.list.current)} of ${this.names.current?.map(({ name }) => name).join()}`;
            return waitFor(() => now() === `${wanted} of ${names}`, {
              what: `"${wanted} of ${names}"`,
            }).catch((error: Error) => {
              error.message += `; it is "${now()}"`;
              throw error;
            });
          },
        });
        const [here, there] = [followed(mine), followed(theirs)];
        await here.shows('', '');
        await there.shows('', '');

        const own = await mine.register({ name: 'orders', id: 'same', version: 'mine' });
        const heard = hear(own);
        const other = await theirs.register({ name: 'orders', id: 'same', version: 'theirs' });
        await theirs.register({ name: 'payments', id: 'p' });
        await here.shows('mine', 'orders');
        await there.shows('theirs', 'orders,payments');

        await own.update({ version: 'mine-again' });
        await here.shows('mine-again', 'orders');
        await other.deregister();
        await there.shows('', 'payments');
        expect(versions(await mine.getService('orders', { consistent: true }))).toBe('mine-again');
        expect(await mine.services({ consistent: true })).toEqual(['orders']);
        expect(await theirs.services({ consistent: true })).toEqual(['payments']);
        expect(await theirs.getService('orders', { consistent: true })).toEqual([]);

        await mine.register({ name: 'payments', id: 'p', version: 'mine' });
        await own.deregister();
        await here.shows('', 'payments');
        expect(ids(await sees(theirs, 'payments', ['p']))).toEqual(['p']);
        await mine.close();
        await there.shows('', 'payments');
        expect(versions(await theirs.getService('payments', { consistent: true }))).toBe('');
        expect(heard.events).toEqual([]);
      },
      { needs: ['tenants'] },
    );
  }
});
