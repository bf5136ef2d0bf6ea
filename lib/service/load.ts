/** What is remembered of an address. */

import type { Load } from './pick/types.js';

/** `Load`, with what the ejector needs. Nothing in it but numbers: it belongs to the ejector and the strategies. */
export class LoadRecord implements Load {
  inFlight = 0;
  latencyMs = -1;
  latencyAt = 0;
  /** Set aside. */
  ejected = false;
  /** Since when. */
  ejectedAt = 0;
  /** Until when; then one call may try. */
  until = 0;
  /** One call is trying; if nothing is heard of it, another may at `until`. */
  probing = false;
  /** How often it was set aside for failures; one less for each sweep in which it was not. */
  times = 0;
  /** How often a connection was refused since the last success. */
  refusals = 0;
  /** Failures in a row. */
  failures = 0;
  /** Since the last sweep. */
  succeeded = 0;
  /** Since the last sweep. */
  failed = 0;
}
