/** To come. */
export class Election {
  constructor(..._: unknown[]) {}
}
