// What is to be held: ratios of one run, taken run by run, at 128 calls in flight unless said otherwise.

/**
 * @typedef {object} Target
 * @property {string} what
 * @property {[string, string]} of which figure: the cell (`who|what|at once`), and the metric
 * @property {[string, string]} [to] what it is divided by, or taken away from if `difference` is set
 * @property {number} [atLeast]
 * @property {number} [atMost]
 * @property {string} [unit] of a figure that is no ratio
 * @property {string} [cause] what it is missed by, where that is known; docs/bench-etcd.md says more
 */

const WAKING = 'waking a thread that sleeps';

/** @type {Target[]} */
export const TARGETS = [
  ...['get', 'put'].flatMap((call) => [
    // The Rust loop is the limit; what that is of etcd3 is told, and no bar.
    ratio(`${call}: throughput, to etcd3`, 'rollcall', 'etcd3', call, 128, 'perSecond', {}),
    ratio(`${call}: throughput, to the Rust loop`, 'rollcall', 'rust', call, 128, 'perSecond', {
      atLeast: 0.95,
      cause:
        call === 'put'
          ? 'the disk that etcd syncs to, which differs from run to run'
          : 'the way to JavaScript and back, on cores that etcd needs',
    }),
  ]),
  ratio('get, grouped: throughput, to the Rust loop', 'grouped', 'rust', 'get', 128, 'perSecond', { atLeast: 3 }),
  ratio('get, grouped: throughput, to etcd3', 'grouped', 'etcd3', 'get', 128, 'perSecond', {}),
  ratio('get: JavaScript thread, to etcd3', 'rollcall', 'etcd3', 'get', 128, 'thread', {
    atMost: 1 / 50,
    cause: WAKING,
  }),
  { what: 'get: JavaScript thread', of: ['rollcall|get|128', 'thread'], atMost: 2, unit: 'µs', cause: WAKING },
  ratio('put: JavaScript thread, to etcd3', 'rollcall', 'etcd3', 'put', 128, 'thread', {
    atMost: 1 / 50,
    cause: WAKING,
  }),
  ratio('get, 1 in flight: p50, to etcd3', 'rollcall', 'etcd3', 'get', 1, 'p50', { atMost: 0.75 }),
  {
    what: 'get, 1 in flight: p50, over the Rust loop',
    of: ['rollcall|get|1', 'p50'],
    to: ['rust|get|1', 'p50'],
    difference: true,
    atMost: 90,
    unit: 'µs',
    cause: WAKING,
  },
  ratio('getAll of 50,000: JavaScript thread, to etcd3', 'rollcall', 'etcd3', 'getAll of 50,000', 1, 'thread', {
    atMost: 1 / 6,
    cause: 'V8 puts 50,000 keys into an object',
  }),
  ratio('live watch event: JavaScript thread, to etcd3', 'rollcall', 'etcd3', 'watch: live events', '', 'thread', {
    atMost: 1 / 10,
    cause: `${WAKING}, for a few events each time`,
  }),
  ratio('replayed watch event: JavaScript thread, to etcd3', 'rollcall', 'etcd3', 'watch: past events', '', 'thread', {
    atMost: 1 / 5,
    cause: 'each is told with all of its fields made',
  }),
  ...[
    ['300 loops of a get, 100 µs of work each', '300 loops'],
    ['1,000 loops of a get, 30 µs of work each', '1,000 loops'],
    ['60,000 past events, 100 µs of work each', '60,000 events'],
  ].flatMap(([cell, what]) => [
    ratio(`${what}: ticks of the event loop, to etcd3`, 'rollcall', 'etcd3', `event loop: ${cell}`, '', 'ticks', {
      atLeast: 0.8,
    }),
    {
      what: `${what}: longest gap of the event loop`,
      of: [`rollcall|event loop: ${cell}|`, 'gap'],
      atMost: 100,
      unit: 'ms',
      cause: 'see how much of it was work: the rest is the machine',
    },
  ]),
];

function ratio(what, who, other, cell, atOnce, metric, bound) {
  return { what, of: [`${who}|${cell}|${atOnce}`, metric], to: [`${other}|${cell}|${atOnce}`, metric], ...bound };
}
