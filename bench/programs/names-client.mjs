// A client that follows the names of a registry in etcd.

import { connect } from 'rollcall';
import { serve } from '../support/child.mjs';
import { jsThread, wholeProcess } from '../support/cpu.mjs';
import { memory } from '../support/memory.mjs';
import { now } from '../support/stats.mjs';

let registry;
let watcher;
let arrived = [];
let begun = { thread: 0, process: 0 };

const spent = () => ({ thread: jsThread(), process: wholeProcess() });

serve({
  async open({ host, prefix }) {
    registry = await connect({ backend: 'etcd', hosts: host, prefix });
    return memory();
  },
  async follow() {
    const [start, before] = [now(), spent()];
    watcher = registry.watchServices();
    const { value } = await watcher.next();
    const took = { ms: now() - start, thread: jsThread() - before.thread, names: value.length, ...(await memory()) };
    void (async () => {
      for await (const _ of watcher) arrived.push(now());
    })();
    return took;
  },
  async read(times) {
    const start = now();
    for (let at = 0; at < times; at++) await registry.services();
    return (now() - start) / times;
  },
  begin() {
    [arrived, begun] = [[], spent()];
  },
  end() {
    const { thread, process } = spent();
    return { arrived, thread: thread - begun.thread, process: process - begun.process };
  },
});
