/** What the conductor needs of a registry's servers: one file each beside this one. */
import type { RegistryOptions } from 'rollcall';
import type { Begin, Listed } from '../history.js';

export type Bounds = Pick<Begin, 'ttlMs' | 'repairMs' | 'removalMs' | 'deliveryMs' | 'staleMs'>;

export interface Member {
  readonly name: string;
  /** host:port, where clients come to. */
  readonly host: string;
  readonly running: boolean;
  readonly frozen: boolean;
  kill(): Promise<void>;
  /** Waits until it serves, which takes a quorum. */
  start(): Promise<void>;
  freeze(): void;
  thaw(): void;
}

export interface Servers {
  readonly bounds: Bounds;
  /** Any member does as well as any other: a registration outlives the loss of one. */
  readonly interchangeable: boolean;
  /** A leader that was stopped may end what others have renewed meanwhile, when it goes on. */
  readonly stoppedLeaderRevokes?: boolean;
  /** For so long after it goes on, a member that was stopped may show what was taken out or deregistered meanwhile. */
  readonly stoppedShowsMs?: number;
  readonly members: readonly Member[];
  leader(): Promise<Member>;
  /** What a registry is opened with, by way of these hosts. */
  options(hosts: readonly string[]): RegistryOptions;
  /** What they hold, read so that a write which was answered before is seen. */
  truth(names: readonly string[]): Promise<Record<string, Listed>>;
  /** Takes an instance away behind its owner's back. */
  remove(name: string, id: string): Promise<void>;
  /** Where the key of an instance lies, if the registry has keys. */
  keyOf?(name: string, id: string): string;
  /** What only etcd has. */
  readonly etcd?: {
    moveLeader(): Promise<void>;
    compact(): Promise<void>;
    /** Revokes the lease of a key, or of the oldest one under a prefix; gives its create revision, if there was one. */
    revoke(what: { readonly key: string } | { readonly prefix: string }): Promise<number | undefined>;
  };
  close(): Promise<void>;
}
