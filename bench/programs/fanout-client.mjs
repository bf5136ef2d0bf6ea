// A client that follows many services: by the native binding alone, by the public API, or by etcd3.

import { setTimeout as delay } from 'node:timers/promises';
import { serve } from '../support/child.mjs';
import { jsThread, wholeProcess } from '../support/cpu.mjs';
import { memory } from '../support/memory.mjs';
import { now } from '../support/stats.mjs';

/** Every way to follow: opens a connection and gives a function that follows names until `whole(list)` of each. */
const WAYS = {
  /** The lists stay on the native side. */
  async native({ host, prefix }) {
    const { open } = await import('../support/native.mjs');
    const client = await open({ backend: 'etcd', hosts: host, prefix });
    client.ref();
    await client.contact(null);
    return async (names) => {
      const watchers = names.map((name) => client.watch(name));
      while (!watchers.every((watcher) => watcher.version() > 0)) await delay(5);
      return watchers;
    };
  },

  /** Every list is delivered. */
  async rollcall({ host, prefix, options = { backend: 'etcd', hosts: host, prefix } }) {
    const { connect } = await import('rollcall');
    const registry = await connect(options);
    return (names, whole, changed) => Promise.all(names.map((name) => first(registry.watch(name), whole, changed)));
  },

  /** A list per name, kept by the events of a watch. */
  async etcd3({ host, prefix }) {
    const { Etcd3 } = await import('etcd3');
    const client = new Etcd3({ hosts: host });
    await client.get('nothing');
    return async (names, whole, changed) => {
      const lists = names.map(() => new Map());
      const left = names.map((name, index) => ({ under: `${prefix}/${name}/`, list: lists[index] }));
      const worker = async () => {
        for (let one = left.pop(); one; one = left.pop()) {
          const { under, list } = one;
          const watcher = await client.watch().prefix(under).create();
          const records = await client.getAll().prefix(under).json();
          for (const [key, instance] of Object.entries(records)) list.set(key, instance);
          if (!whole([...list.values()])) throw new Error(`${under} has ${list.size} instances`);
          watcher.on('put', ({ key, value }) => {
            list.set(key.toString(), JSON.parse(value.toString()));
            changed([...list.values()].sort((a, b) => (a.id < b.id ? -1 : 1)));
          });
          watcher.on('delete', ({ key }) => list.delete(key.toString()));
        }
      };
      await Promise.all(Array.from({ length: 32 }, worker));
      return lists;
    };
  },
};

/** Resolves at the first whole list; what comes later is a change. */
function first(watcher, whole, changed) {
  return new Promise((resolve, reject) => {
    (async () => {
      let ready = false;
      for await (const list of watcher) {
        if (ready) changed(list);
        else if (whole(list)) {
          ready = true;
          resolve(watcher);
        }
      }
    })().catch(reject);
  });
}

let follow;
const kept = [];
const deliveries = [];

serve({
  async open({ way, ...where }) {
    follow = await WAYS[way](where);
    return memory();
  },
  async follow({ names, perName }) {
    const start = now();
    const followed = await follow(
      names,
      (list) => list.length === perName,
      // The number of a change is in the version of its first instance; where it has none, in its node.
      ([{ name, version, metadata }]) =>
        deliveries.push({ name, seq: Number((version || metadata.node).split('.')[2]), at: now() }),
    );
    const tookMs = now() - start;
    kept.push(...followed);
    return { tookMs, watched: kept.length, ...(await memory()) };
  },
  deliveries: () => deliveries.splice(0),
  cpu: () => ({ thread: jsThread(), process: wholeProcess() }),
});
