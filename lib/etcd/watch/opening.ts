/** What a `create()` that waits is told. */

/** Why a watch failed: makes the error, so that its stack shows whoever gets it. */
export type Failed = () => unknown;

/**
 * What a `create()` that waits is told, once: that etcd has taken the watch, or why it never will.
 *
 * @internal
 */
export class Opening {
  /** Resolves with what makes the error, or with nothing when the watch stands. */
  readonly done: Promise<Failed | undefined>;
  #tell: ((failed?: Failed) => void) | undefined;

  /** `waits`: whether there is a `create()`. */
  constructor(waits: boolean) {
    this.done = waits
      ? new Promise((resolve) => {
          this.#tell = resolve;
        })
      : Promise.resolve(undefined);
  }

  /** Says whether somebody was waiting. */
  settle(failed?: Failed): boolean {
    const tell = this.#tell;
    this.#tell = undefined;
    tell?.(failed);
    return tell !== undefined;
  }
}
