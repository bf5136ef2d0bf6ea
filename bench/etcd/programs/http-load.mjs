// Asks a server over HTTP, in a process of its own: http-load.mjs

import { Agent, get } from 'node:http';
import { serve } from '../../support/child.mjs';
import { now, quantile } from '../../support/stats.mjs';

/** How long a request took, in microseconds. */
function request(port, agent) {
  return new Promise((resolve, reject) => {
    const begun = now();
    get({ host: '127.0.0.1', port, agent }, (response) => {
      response.on('data', () => {});
      response.on('end', () => resolve((now() - begun) * 1000));
    }).on('error', reject);
  });
}

serve({
  /** So many connections with one request at a time, for so long; a request that is under way then is waited for. */
  async load({ port, connections, ms, most }) {
    const agent = new Agent({ keepAlive: true, maxSockets: connections });
    const times = [];
    const begun = now();
    let left = most;
    const caller = async () => {
      while (now() < begun + ms && left-- > 0) times.push(await request(port, agent));
    };
    await Promise.all(Array.from({ length: connections }, caller));
    const wall = now() - begun;
    agent.destroy();
    return { perSecond: (times.length / wall) * 1000, p50: quantile(times, 0.5), p99: quantile(times, 0.99) };
  },
});
