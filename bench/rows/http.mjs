// What a call over HTTP costs by name, beside the same call to as many fixed addresses in turn.

import { createRequire } from 'node:module';
import { connect } from 'rollcall';
import { createFetch, ServiceAgent } from 'rollcall/http';
import { start } from '../support/child.mjs';
import { inRounds } from '../support/rounds.mjs';
import { sized } from '../support/small.mjs';

const ROUNDS = sized(12, 1);
const CALLS = sized(2000, 64);
/** In percent of the processor time of a call to fixed addresses. */
const TARGET = 10;

export default {
  name: 'http',
  title: 'A call over HTTP by name, beside three fixed addresses: processor time of client and servers together',
  async run({ progress }) {
    const servers = start('http-servers.mjs');
    const ports = await servers.ask('start');
    const registry = await connect('memory://bench-http?logger=0');
    for (const port of ports) await registry.register({ name: 'orders', endpoints: [`http://127.0.0.1:${port}`] });
    const orders = registry.service('orders');
    await orders.ready({ min: ports.length });

    let turn = 0;
    const address = () => `http://127.0.0.1:${ports[turn++ % ports.length]}/7`;
    const read = async (response) => await (await response).text();
    const ways = [
      { what: 'three fixed addresses, built-in fetch', call: () => read(fetch(address())) },
      // Every call by name has a deadline, whose signal is a part of what it costs.
      {
        what: '… with a deadline',
        call: () => read(fetch(address(), { signal: AbortSignal.timeout(30_000) })),
        than: 0,
      },
      { what: 'by name, service.fetch()', call: () => read(orders.fetch('/7')), than: 0, target: TARGET },
    ];
    const undici = undiciModule();
    const closing = [];
    if (undici) {
      const options = { undici };
      const [agent, pool, byName] = [
        new ServiceAgent(registry, options),
        new undici.Agent(),
        createFetch(registry, options),
      ];
      closing.push(agent, pool, byName);
      const body = async (call) => await (await call).body.text();
      const fixed = { dispatcher: pool };
      const named = { dispatcher: agent };
      ways.push(
        // What createFetch() does with a name: the built-in fetch over the connections of undici.
        {
          what: "three fixed addresses, built-in fetch over undici's Agent",
          call: () => read(fetch(address(), fixed)),
        },
        { what: 'by name, createFetch()', call: () => read(byName('http://orders/7')), than: 3, target: TARGET },
        { what: 'three fixed addresses, request of undici', call: () => body(undici.request(address(), fixed)) },
        {
          what: 'by name, ServiceAgent',
          call: () => body(undici.request('http://orders/7', named)),
          than: 5,
          target: TARGET,
        },
      );
    } else progress('without undici: `npm test -- __test__/http` installs it');
    const figures = await inRounds(ways, { rounds: ROUNDS, calls: CALLS, pid: servers.pid, progress });
    for (const one of closing) await one.close();
    await registry.close();
    await servers.end();
    return figures;
  },
};

/** The undici that the tests have installed: the package itself has none. */
function undiciModule() {
  try {
    return createRequire(new URL('../../build/test-projects/http/package.json', import.meta.url))('undici7');
  } catch {
    return undefined;
  }
}
