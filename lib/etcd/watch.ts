/** To come. */
export class WatchBuilder {
  constructor(..._: unknown[]) {}
}
