// What a unary call over gRPC costs by name, beside the same call to as many fixed addresses.

import { connect } from 'rollcall';
import { registerResolver } from 'rollcall/grpc';
import { start } from '../support/child.mjs';
import { ofProcess, wholeProcess } from '../support/cpu.mjs';
import { grpcModule, METHODS } from '../support/grpc.mjs';
import { sized } from '../support/small.mjs';
import { repeated, steady } from '../support/steady.mjs';

const ROUNDS = sized(12, 1);
const CALLS = sized(2000, 64);
const CALLERS = 16;
/** In percent of the processor time of a call to fixed addresses. */
const TARGET = 5;

const ROUND_ROBIN = JSON.stringify({ loadBalancingConfig: [{ round_robin: {} }] });

export default {
  name: 'grpc',
  title: 'A unary call over gRPC by name, beside three fixed addresses: processor time of client and servers together',
  async run({ progress }) {
    const grpc = grpcModule();
    if (!grpc) {
      progress('left out: `npm test -- __test__/grpc` installs the grpc-js that it needs');
      return [];
    }
    const servers = start('grpc-servers.mjs');
    const ports = await servers.ask('start');
    const registry = await connect('memory://bench-grpc?logger=0');
    for (const port of ports) await registry.register({ name: 'orders', endpoints: [`grpc://127.0.0.1:${port}`] });
    const policies = ['rollcall_p2c', 'rollcall_weighted', 'round_robin'];
    const registrations = policies.map((policy) =>
      registerResolver(registry, { grpc, policy, authority: policy.replace('_', '-') }),
    );

    const Client = grpc.makeGenericClientConstructor(METHODS, 'Orders');
    const dial = (target, options) => new Client(target, grpc.credentials.createInsecure(), options);
    const addresses = ports.map((port) => `127.0.0.1:${port}`).join();
    const clients = [dial(`ipv4:${addresses}`, { 'grpc.service_config': ROUND_ROBIN })];
    for (const policy of policies) clients.push(dial(`discovery://${policy.replace('_', '-')}/orders`));

    const names = ['three fixed addresses, round_robin', ...policies.map((policy) => `by name, ${policy}`)];
    const steadies = [];
    for (const [n, client] of clients.entries()) {
      steadies.push(
        await steady(
          names[n],
          repeated(() => calls(client, 500)),
        ),
      );
    }
    const values = clients.map(() => []);
    for (let round = 0; round < ROUNDS; round++) {
      // The order turns: who comes first has the heap that the last one left.
      for (let turn = 0; turn < clients.length; turn++) {
        const n = (round + turn) % clients.length;
        const before = wholeProcess() + ofProcess(servers.pid);
        await calls(clients[n], CALLS);
        values[n].push(((wholeProcess() + ofProcess(servers.pid) - before) / CALLS) * 1000);
      }
      progress(`${round + 1}/${ROUNDS}`);
    }
    for (const client of clients) client.close();
    for (const { unregister } of registrations) unregister();
    await registry.close();
    await servers.end();
    const [fixed] = values;
    return [
      ...names.map((what, n) => ({ what, unit: 'µs', values: values[n], steady: steadies[n] })),
      ...policies.map((policy, n) => ({
        what: `by name, ${policy}: more than fixed`,
        unit: '%',
        values: values[n + 1].map((value, round) => (value / fixed[round] - 1) * 100),
        target: TARGET,
      })),
    ];
  },
};

/** Makes so many calls, some at once; gives how many. */
async function calls(client, count) {
  let left = count;
  const order = Buffer.from('an order');
  const one = () => new Promise((resolve, reject) => client.get(order, (error) => (error ? reject(error) : resolve())));
  const caller = async () => {
    while (left-- > 0) await one();
  };
  await Promise.all(Array.from({ length: CALLERS }, caller));
  return count;
}
