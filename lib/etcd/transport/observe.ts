/** Telling others of every call: a hook, and what makes OpenTelemetry's spans and measurements of it. */

import { type MeterLike, spanOf, type TracerLike } from '../../common/telemetry.js';
import type { CallContext } from '../rpc/calls.js';

/** A call that begins. */
export interface ObservedCall {
  /** `KV`, `Lease`, … */
  service: CallContext['service'];
  /** `range`, `put`, … */
  method: string;
}

/**
 * What is told of every unary call of a client, its tries together; of the option `observe`. It runs on the JavaScript
 * thread, and takes calls off the quick path: a call costs some microseconds more then. `client.metrics()` costs nothing.
 */
export interface CallObserver {
  /**
   * A call begins. What it gives is called once when the call ends: with the error, if it failed. What they throw harms no
   * call: the first time it is logged.
   */
  begin(call: ObservedCall): ((error?: Error) => void) | undefined;
}

/**
 * An observer that reports calls to OpenTelemetry: a client span for each when there is a `tracer`, and the histogram
 * `rpc.client.duration` in milliseconds when there is a `meter`, with the attributes `rpc.system`, `rpc.service`,
 * `rpc.method` and `rpc.grpc.status_code` (OpenTelemetry's semantic conventions for RPC). No key and no value is in them.
 * Values of other packages are taken by their shape.
 *
 * ```js
 * import { metrics, trace } from '@opentelemetry/api';
 * const observe = openTelemetry({ tracer: trace.getTracer('orders'), meter: metrics.getMeter('orders') });
 * const client = new Etcd3({ hosts, observe });
 * ```
 */
export function openTelemetry({ tracer, meter }: { tracer?: TracerLike; meter?: MeterLike }): CallObserver {
  const duration = meter?.createHistogram('rpc.client.duration', {
    unit: 'ms',
    description: 'How long calls of etcd take, tries again included.',
  });
  return {
    begin({ service, method }) {
      const rpc = { 'rpc.system': 'grpc', 'rpc.service': `etcdserverpb.${service}`, 'rpc.method': method };
      const ended = spanOf(tracer, `etcdserverpb.${service}/${method}`, rpc);
      const start = performance.now();
      return (error) => {
        const code = error ? ((error as { grpcCode?: number }).grpcCode ?? 2) : 0;
        duration?.record(performance.now() - start, { ...rpc, 'rpc.grpc.status_code': code });
        ended({ 'rpc.grpc.status_code': code }, error);
      };
    },
  };
}
