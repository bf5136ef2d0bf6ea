// A service that registers itself and calls another one: every call goes to the next instance of it.

import { connect, type ServiceInstance } from 'rollcall';

// SIGTERM deregisters, then ends the process.
const registry = await connect({ backend: 'etcd', hosts: '127.0.0.1:2379', signals: ['SIGTERM', 'SIGINT'] });

// The wildcard becomes the address of this machine.
const registration = await registry.register({
  name: 'orders',
  version: '1.4.0',
  endpoints: ['http://0.0.0.0:8000'],
  metadata: { zone: 'a' },
});
registration.on('lost', (reason) => console.warn(`orders is out of the registry: ${reason}`));
registration.on('restored', () => console.info('orders is back in the registry'));

// A live watch makes getService() answer from memory, in a microsecond; and while the registry is away.
const watcher = registry.watch('payments');
await watcher.next();

let turn = 0;
async function nextPayments(): Promise<ServiceInstance> {
  const instances = await registry.getService('payments');
  const instance = instances[turn++ % instances.length];
  if (!instance) throw new Error('no instance of payments is running');
  return instance;
}

const { id, endpoints } = await nextPayments();
console.log(`this payment goes to ${id} at ${endpoints[0]}`);
