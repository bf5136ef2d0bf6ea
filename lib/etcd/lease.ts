/** To come. */
export class Lease {
  constructor(..._: unknown[]) {}
}
export interface ILeaseOptions {
  autoKeepAlive?: boolean;
}
