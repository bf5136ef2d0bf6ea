// What is to be held: ratios of one run, taken run by run, at 128 calls in flight unless said otherwise.

/**
 * @typedef {object} Target
 * @property {string} what
 * @property {[string, string]} of which figure: the cell (`who|what|at once`), and the metric
 * @property {[string, string]} [to] what it is divided by, or taken away from if `difference` is set
 * @property {number} [atLeast]
 * @property {number} [atMost]
 * @property {string} [unit] of a figure that is no ratio
 */

/** @type {Target[]} */
export const TARGETS = [
  ...['get', 'put'].flatMap((call) => [
    ratio(`${call}: throughput, to etcd3`, 'rollcall', 'etcd3', call, 128, 'perSecond', {
      atLeast: call === 'get' ? 4 : 3,
    }),
    ratio(`${call}: throughput, to the Rust loop`, 'rollcall', 'rust', call, 128, 'perSecond', { atLeast: 0.9 }),
  ]),
  ratio('get, grouped: throughput, to the Rust loop', 'grouped', 'rust', 'get', 128, 'perSecond', { atLeast: 3 }),
  ratio('get, grouped: throughput, to etcd3', 'grouped', 'etcd3', 'get', 128, 'perSecond', { atLeast: 20 }),
  ratio('get: JavaScript thread, to etcd3', 'rollcall', 'etcd3', 'get', 128, 'thread', { atMost: 1 / 50 }),
  { what: 'get: JavaScript thread', of: ['rollcall|get|128', 'thread'], atMost: 2, unit: 'µs' },
  ratio('put: JavaScript thread, to etcd3', 'rollcall', 'etcd3', 'put', 128, 'thread', { atMost: 1 / 40 }),
  ratio('get, 1 in flight: p50, to etcd3', 'rollcall', 'etcd3', 'get', 1, 'p50', { atMost: 0.75 }),
  {
    what: 'get, 1 in flight: p50, over the Rust loop',
    of: ['rollcall|get|1', 'p50'],
    to: ['rust|get|1', 'p50'],
    difference: true,
    atMost: 90,
    unit: 'µs',
  },
  ratio('getAll of 50,000: JavaScript thread, to etcd3', 'rollcall', 'etcd3', 'getAll of 50,000', 1, 'thread', {
    atMost: 1 / 6,
  }),
  ratio('live watch event: JavaScript thread, to etcd3', 'rollcall', 'etcd3', 'watch: live events', '', 'thread', {
    atMost: 1 / 30,
  }),
  ratio('replayed watch event: JavaScript thread, to etcd3', 'rollcall', 'etcd3', 'watch: past events', '', 'thread', {
    atMost: 1 / 8,
  }),
];

function ratio(what, who, other, cell, atOnce, metric, bound) {
  return { what, of: [`${who}|${cell}|${atOnce}`, metric], to: [`${other}|${cell}|${atOnce}`, metric], ...bound };
}
