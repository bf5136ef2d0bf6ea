/** The options that every backend has. */

import type { Logger } from '../common/logger.js';
import type { RegistryObserver } from './observe.js';

/** Options of every backend. */
export interface CommonOptions {
  /**
   * How long an instance outlives a process that died without a word, in milliseconds. What the server grants counts.
   * Default 15000, at least 1000.
   */
  ttlMs?: number | undefined;
  /** Time for the whole first contact, credentials included, in milliseconds. Default 10000. */
  connectTimeoutMs?: number | undefined;
  /** Time for one call, in milliseconds; most calls take their own. Default 10000. */
  timeoutMs?: number | undefined;
  /** `true`: `connect()` resolves without touching the network. Default false. */
  lazy?: boolean | undefined;
  /**
   * The stall guard: an instance is withdrawn when the JavaScript thread that registered it has not ticked for this
   * many milliseconds, and put back as soon as it ticks again. Default 30000, at least 100; 0 turns it off.
   */
  stallTimeoutMs?: number | undefined;
  /**
   * How long, in milliseconds, a list after a reconnection is not believed when it lacks more than half of the instances
   * of the list before; the watch keeps the list before. Default 15000; 0 turns it off.
   */
  emptyGraceMs?: number | undefined;
  /**
   * The host to write instead of a wildcard (`0.0.0.0`, `[::]`) in endpoints. Default: the environment variable
   * `ROLLCALL_ADVERTISE_HOST`, else an address of this machine, chosen by Kratos's rule.
   */
  advertiseHost?: string | undefined;
  /**
   * On these signals, such as `SIGTERM`, the registry is closed, with a drain of 250 ms where something was registered (0 on
   * memory); then the signal goes through, and ends the process.
   * Where the program listens to the signal itself, its listener decides when the process ends: the signal doesn't go
   * through, and a warning says so. Listeners of `signal-exit`, which decide nothing, don't count. At a second signal the
   * end waits for 500 ms at most. Default none. Not in worker threads, which get no signals.
   */
  signals?: readonly `SIG${string}`[] | undefined;
  /** Where log lines go; `false` is nowhere. Default: warnings and errors to `console`. */
  logger?: Logger | false | undefined;
  /** Is told of every call, for traces and measurements: see `openTelemetry()`. `false`, the default: nobody. */
  observe?: RegistryObserver | false | undefined;
}
