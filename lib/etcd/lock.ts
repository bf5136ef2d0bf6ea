/** To come. */
export class Lock {
  constructor(..._: unknown[]) {}
}
