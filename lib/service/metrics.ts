/** What is counted of a service that is called by name. */

/** What was counted of a service since it is followed. */
export interface ServiceMetrics {
  /** Picks, those of retries among them. */
  readonly picks: number;
  /** Calls under way. */
  readonly inFlight: number;
  /** How often an instance was set aside. */
  readonly ejections: number;
  /** Tries after the first one of a call, those of `fetch()`. */
  readonly retries: number;
  /** How many retries are left in the budget now. */
  readonly budget: number;
}
