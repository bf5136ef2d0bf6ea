import { Etcd3 } from 'rollcall/etcd';

const client = new Etcd3({ hosts: process.env.ETCD_HOSTS ?? '127.0.0.1:2379' }); // all members, with commas between
await client.put('greeting').value('hello');
console.log(await client.get('greeting').string(), await client.getAll().prefix('gr').keys());

const watcher = await client.watch().prefix('workers/').create();
const lease = client.lease(10); // kept alive by a native thread
lease.on('lost', (error) => console.error(error.message));
await lease.put('workers/1').value('here');
for await (const { type, key, value, revision } of watcher) {
  console.log(type, `${key}`, `${value}`, revision > 0n); // each change once, in order, whatever breaks
  break;
}

const won = await client.if('greeting', 'Version', '>', 0).then(client.put('answer').value(42)).commit();
console.log(won.succeeded, await client.get('answer').number());
await client.mutex('nightly').do(async () => console.log('nobody else')); // a queue that etcdctl lock respects
await client.close(); // revokes the leases, ends the watches
