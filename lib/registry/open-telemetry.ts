/** What OpenTelemetry is told of registry clients. */

import { type Attributes, type MeterLike, spanOf, type TracerLike } from '../common/telemetry.js';
import type { RegistryMetrics } from './metrics.js';
import type { RegistryObserver } from './observe.js';

/** A client whose counters are read. */
type Client = Parameters<NonNullable<RegistryObserver['attach']>>[0];

/** An instrument: its name, what it says, and its number. */
type Instrument<T> = readonly [kind: 'counter' | 'gauge', name: string, description: string, of: (from: T) => number];

const OF_CLIENTS: readonly Instrument<RegistryMetrics>[] = [
  ['gauge', 'registrations', 'Registrations that have not ended.', ({ registrations }) => registrations.alive],
  ['gauge', 'registrations.out', 'Registrations out of traffic.', ({ registrations }) => registrations.out],
  ['counter', 'registrations.losses', 'Records that were lost.', ({ registrations }) => registrations.losses],
  [
    'counter',
    'registrations.repairs',
    'Records that are back after a loss.',
    ({ registrations }) => registrations.repairs,
  ],
  ['gauge', 'watches', 'Names that are followed.', ({ watches }) => watches.followed],
  ['gauge', 'watches.stale', 'Names whose list is stale.', ({ watches }) => watches.stale],
  ['counter', 'watches.breaks', 'How often a list became stale.', ({ watches }) => watches.breaks],
];

const OF_SERVICES: readonly Instrument<RegistryMetrics['services'][string]>[] = [
  ['counter', 'service.picks', 'Instances that were picked for a call.', ({ picks }) => picks],
  ['gauge', 'service.in_flight', 'Calls under way.', ({ inFlight }) => inFlight],
  ['counter', 'service.ejections', 'How often an instance was set aside.', ({ ejections }) => ejections],
  ['counter', 'service.retries', 'Tries of fetch() after the first one.', ({ retries }) => retries],
  ['gauge', 'service.retry_budget', 'Retries that are left in the budget.', ({ budget }) => budget],
];

/**
 * An observer that reports to OpenTelemetry, for the option `observe`; one for all clients of a program. Values of other
 * packages are taken by their shape.
 *
 * - With a `tracer`, a client span `rollcall.<method>` for each call, with `rollcall.backend`, `rollcall.method`,
 *   `rollcall.service`, `rollcall.attempts`, and `error.type`, the code of its error.
 * - With a `meter`, the histogram `rollcall.call.duration` in milliseconds, with `rollcall.backend`, `rollcall.method` and
 *   `error.type`; and counters and gauges of `registry.metrics()`, read when they are asked for: `rollcall.registrations`,
 *   `.out`, `.losses`, `.repairs`, `rollcall.watches`, `.stale`, `.breaks`, and of each service that is called by name
 *   `rollcall.service.picks`, `.in_flight`, `.ejections`, `.retries`, `.retry_budget`, with `rollcall.service`. Clients of one
 *   kind of registry are added up.
 *
 * ```js
 * import { metrics, trace } from '@opentelemetry/api';
 * const observe = openTelemetry({ tracer: trace.getTracer('orders'), meter: metrics.getMeter('orders') });
 * const registry = await connect({ backend: 'etcd', hosts, observe });
 * ```
 */
export function openTelemetry({ tracer, meter }: { tracer?: TracerLike; meter?: MeterLike }): RegistryObserver {
  const duration = meter?.createHistogram('rollcall.call.duration', {
    unit: 'ms',
    description: 'How long calls of a registry client take, tries again included.',
  });
  const clients = new Set<Client>();
  if (meter) {
    const read = () => [...clients].map(({ backend, read }) => ({ backend, metrics: read() }));
    for (const instrument of OF_CLIENTS) {
      install(meter, instrument, () =>
        read().map(({ backend, metrics }) => ({ attributes: { 'rollcall.backend': backend }, from: metrics })),
      );
    }
    for (const instrument of OF_SERVICES) {
      install(meter, instrument, () =>
        read().flatMap(({ backend, metrics }) =>
          Object.entries(metrics.services).map(([name, from]) => ({
            attributes: { 'rollcall.backend': backend, 'rollcall.service': name },
            from,
          })),
        ),
      );
    }
  }
  return {
    begin({ backend, method, name }) {
      const call = { 'rollcall.backend': backend, 'rollcall.method': method };
      const ended = spanOf(tracer, `rollcall.${method}`, {
        ...call,
        ...(name !== undefined && { 'rollcall.service': name }),
      });
      return (error, { durationMs, attempts }) => {
        const outcome = error ? { 'error.type': String((error as { code?: unknown }).code ?? error.name) } : {};
        duration?.record(durationMs, { ...call, ...outcome });
        ended({ ...outcome, 'rollcall.attempts': attempts }, error);
      };
    },
    attach(client) {
      clients.add(client);
      return () => void clients.delete(client);
    },
  };
}

/** Makes an instrument that is asked. What has the same attributes is one number. */
function install<T>(
  meter: MeterLike,
  [kind, name, description, of]: Instrument<T>,
  all: () => readonly { attributes: Attributes; from: T }[],
): void {
  const options = { description };
  const made =
    kind === 'counter'
      ? meter.createObservableCounter?.(`rollcall.${name}`, options)
      : meter.createObservableGauge?.(`rollcall.${name}`, options);
  made?.addCallback((result) => {
    const sums = new Map<string, { attributes: Attributes; sum: number }>();
    for (const { attributes, from } of all()) {
      const key = Object.values(attributes).join('\n');
      const known = sums.get(key);
      if (known) known.sum += of(from);
      else sums.set(key, { attributes, sum: of(from) });
    }
    for (const { attributes, sum } of sums.values()) result.observe(sum, attributes);
  });
}
