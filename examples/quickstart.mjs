import { connect } from 'rollcall';

// On etcd: connect('etcd://10.0.0.1:2379,10.0.0.2:2379'). Without a URL the registry is the memory of this process.
const registry = await connect();
const registration = await registry.register({ name: 'orders', version: '1.4.0', endpoints: ['grpc://10.1.2.3:9000'] });
console.log(await registry.getService('orders'));

for await (const instances of registry.watch('orders')) {
  console.log(instances.map(({ id, endpoints }) => `${id} ${endpoints}`));
  if (!instances.some(({ id }) => id === registration.id)) break;
  await registration.deregister(); // the next list is without it
}
await registry.close();
