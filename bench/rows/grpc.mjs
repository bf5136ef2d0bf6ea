// What a unary call over gRPC costs by name, beside the same call to as many fixed addresses.

import { connect } from 'rollcall';
import { registerResolver } from 'rollcall/grpc';
import { start } from '../support/child.mjs';
import { grpcModule, METHODS } from '../support/grpc.mjs';
import { inRounds } from '../support/rounds.mjs';
import { sized } from '../support/small.mjs';

const ROUNDS = sized(12, 1);
const CALLS = sized(2000, 64);
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

    const order = Buffer.from('an order');
    const calling = (client) => () =>
      new Promise((resolve, reject) => client.get(order, (error) => (error ? reject(error) : resolve())));
    const [fixed, ...named] = clients.map(calling);
    const ways = [
      { what: 'three fixed addresses, round_robin', call: fixed },
      ...policies.map((policy, n) => ({ what: `by name, ${policy}`, call: named[n], than: 0, target: TARGET })),
    ];
    const figures = await inRounds(ways, { rounds: ROUNDS, calls: CALLS, pid: servers.pid, progress });
    for (const client of clients) client.close();
    for (const { unregister } of registrations) unregister();
    await registry.close();
    await servers.end();
    return figures;
  },
};
