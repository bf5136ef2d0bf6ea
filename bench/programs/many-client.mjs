// A client that registers many instances at once: by rollcall or by etcd3.

import { serve } from '../support/child.mjs';
import { jsThread } from '../support/cpu.mjs';
import { instanceOf, keyOf, recordOf } from '../support/instances.mjs';
import { memory } from '../support/memory.mjs';
import { now } from '../support/stats.mjs';

const WAYS = {
  async rollcall({ host, prefix }) {
    const { connect } = await import('rollcall');
    const registry = await connect({ backend: 'etcd', hosts: host, prefix });
    return { register: (instance) => registry.register(instance), close: () => registry.close({ timeoutMs: 30_000 }) };
  },
  async etcd3({ host, prefix }) {
    const { Etcd3 } = await import('etcd3');
    const client = new Etcd3({ hosts: host });
    await client.get('nothing');
    const leases = [];
    return {
      async register(instance) {
        const lease = client.lease(15);
        leases.push(lease);
        await lease.put(keyOf(prefix, instance)).value(recordOf(instance));
      },
      async close() {
        await Promise.all(leases.map((lease) => lease.revoke()));
        client.close();
      },
    };
  },
};

let client;

serve({
  async open({ way, host, prefix }) {
    client = await WAYS[way]({ host, prefix });
    return memory();
  },
  async register({ names, perName }) {
    const instances = names.flatMap((name) => Array.from({ length: perName }, (_, n) => instanceOf(name, n)));
    const cpu = jsThread();
    const start = now();
    await Promise.all(instances.map((instance) => client.register(instance)));
    const resolved = now();
    const thread = jsThread() - cpu;
    return { start, resolved, thread, ...(await memory()) };
  },
  async close() {
    const start = now();
    await client.close();
    return now() - start;
  },
});
