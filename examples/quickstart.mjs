// The quick start of the README: `node examples/quickstart.mjs`.
import { connect } from 'rollcall';

const registry = await connect(); // ROLLCALL_REGISTRY=etcd://127.0.0.1:2379, or without it the memory of this process
const registration = await registry.register({ name: 'orders', version: '1.4.0', endpoints: ['grpc://10.1.2.3:9000'] });
console.log(await registry.getService('orders'));

setTimeout(() => registration.deregister(), 1000);
for await (const instances of registry.watch('orders')) {
  console.log(`orders: ${instances.length} running`);
  if (instances.length === 0) break;
}
await registry.close();
