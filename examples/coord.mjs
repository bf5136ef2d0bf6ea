import { connectCoord, defineConfig } from 'rollcall/coord';

// On etcd: connectCoord({ url: 'etcd://10.0.0.1:2379', env: 'dev', … }). Without a URL the store is the memory of this process.
const coord = await connectCoord({ env: 'dev', service: 'orders' });
// It is a registry client too. What is registered keeps the process alive; a configuration alone does not.
await coord.registry.register({ name: 'orders', endpoints: ['grpc://10.1.2.3:9000'] });

// Any Standard Schema will do, such as one of zod. What it refuses is never seen.
const validate = (value) =>
  value.rate > 0 ? { value } : { issues: [{ message: 'expected more than 0', path: ['rate'] }] };
const schema = { '~standard': { version: 1, vendor: 'example', validate } };
const limits = await coord.config.open(
  defineConfig({ key: '/config/{env}/{service}/limits', schema, default: { rate: 100 } }),
);
for await (const { rate } of limits) {
  console.log(`the rate is ${rate}`); // the value now, then each change
  if (rate === 200) break;
  await coord.config.set('/config/dev/orders/limits', { rate: 200 });
}

// One at a time, among all processes.
await coord.lock.withLock('report', async (held) => {
  console.log(`the report is ours alone, with token ${held.token}`);
});

// One of all processes leads; when it goes, the next one does.
const campaign = coord.elections.campaign('scheduler', { value: 'instance a' });
for await (const term of campaign.leaders()) {
  console.log(`instance a leads, with token ${term.token}`);
  await campaign.resign();
}
await coord.close();
