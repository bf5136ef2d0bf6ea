/** The facts by which registries differ. */

/** What a registry can do, and what it knows. */
export interface Capabilities {
  /** Instances can be registered. */
  readonly register: boolean;
  /** The instance of a process that died goes by itself. */
  readonly expires: boolean;
  /** Two owners of one id are told apart: the older one hears `replaced`. */
  readonly owners: boolean;
  /** Instances are found under the id they were registered with. */
  readonly keepsId: boolean;
  /** `services()` and `watchServices()` work. */
  readonly listsNames: boolean;
  /** `watchServices()` tells how many instances a name has. */
  readonly countsNames: boolean;
  /** A client can hold one registration at a time only. */
  readonly oneRegistration: boolean;
  /**
   * For how long a change of one instance may be spread over several records, so that others see parts of it, in
   * milliseconds; 0 where an instance is one record.
   */
  readonly settlesMs: number;
  /** Lists say since when an instance is registered: `since`. */
  readonly since: boolean;
  /** Lists say how much time is left to an instance without renewal. */
  readonly expiresIn: boolean;
  /** It is told why an instance left. */
  readonly leavingReason: boolean;
  /** Operators of the registry can take an instance out of traffic by a switch of its own, which no owner undoes. */
  readonly ownSwitch: boolean;
}
