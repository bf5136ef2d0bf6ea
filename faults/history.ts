/**
 * What the processes of a fault run write down, one JSON value a line: the conductor, who starts everything and does the
 * harm, and each process under test. The checker (`check.ts`) reads nothing else.
 *
 * Times are milliseconds of the machine's monotonic clock, which is one for all processes.
 */
export type Time = number;

/** What each instance that is in a list says of itself: its id, and the number of its latest `register()` or `update()`. */
export type Listed = Readonly<Record<string, number>>;

/**
 * Under this name watchers tell of the names themselves, and are judged as of any other: the list has how many instances each
 * name has, 0 where the registry does not count them. No service has such a name.
 */
export const THE_NAMES = 'the names';

/** A stretch of time in which something was made to fail. */
export interface Fault {
  readonly kind: 'fault';
  readonly at: Time;
  /** When it was healed. */
  readonly until: Time;
  /** For example `kill leader`, `black hole`, `block event loop`. */
  readonly what: string;
  /** What it was done to, as people call it: `member 2`, `zone b`, `registrar 3`. */
  readonly target: string;
  /** The processes that may notice; of a fault of the servers all. */
  readonly touches: readonly string[];
  /** The servers themselves are harmed, so that deadlines which they keep may begin anew. */
  readonly servers: boolean;
  /** The process itself is stopped or its event loop blocked: it can write nothing, and settle nothing. */
  readonly mute: boolean;
  /** Registrations must outlive it, unless something else touches their process within a TTL before or after. */
  readonly survivable?: boolean;
  /**
   * A term of a lock or election was ended behind its holder's back, so that somebody else may lead before it can know: one
   * term, or, without a token, perhaps any, when it was healed.
   */
  readonly ended?: { readonly of?: string; readonly token?: number };
  /** What was taken out of traffic or deregistered meanwhile may be seen again after it, until then: a documented bound. */
  readonly shownUntil?: Time;
}

/** The first entry. Bounds are milliseconds, as documented for the backend. */
export interface Begin {
  readonly kind: 'begin';
  readonly at: Time;
  readonly seed: number;
  readonly backend: 'etcd' | 'consul' | 'zookeeper';
  readonly minutes: number;
  /** Of registrations, leases, locks. */
  readonly ttlMs: number;
  /** After the last fault that touches it, an instance is registered again within this. */
  readonly repairMs: number;
  /** Beyond its TTL, a dead process is gone from the registry within this. */
  readonly removalMs: number;
  /** A watcher that nothing harms tells of a change within this. */
  readonly deliveryMs: number;
  /** A watcher that is harmed and may be out of date says so within this. */
  readonly staleMs: number;
}

export type Conducted =
  | Begin
  | Fault
  /** The machine itself stood still: nobody is blamed for this time. */
  | { readonly kind: 'hiccup'; readonly at: Time; readonly until: Time }
  /** What the servers hold, by a linearizable read of every name that was asked at `at` and answered at `until`. */
  | {
      readonly kind: 'truth';
      readonly at: Time;
      readonly until: Time;
      readonly names: Readonly<Record<string, Listed>>;
    }
  | {
      readonly kind: 'sample';
      readonly at: Time;
      readonly who: string;
      readonly rssMb: number;
      readonly threads: number;
      readonly descriptors: number;
    }
  | { readonly kind: 'started'; readonly at: Time; readonly who: string }
  /** `killed` by the conductor, `left` at the end of the run, `crashed` by itself. */
  | {
      readonly kind: 'died';
      readonly at: Time;
      readonly who: string;
      readonly how: 'killed' | 'left' | 'crashed';
      readonly why?: string;
    }
  /** All faults are healed for long enough: what is known from here on is the end. */
  | { readonly kind: 'calm'; readonly at: Time }
  | { readonly kind: 'end'; readonly at: Time };

export type Told =
  /** A call begins. `id` is unique for the life of the process; `of` is the instance, lock or election, `n` the number it writes. */
  | {
      readonly kind: 'call';
      readonly at: Time;
      readonly who: string;
      readonly id: number;
      readonly what:
        | 'connect'
        | 'register'
        | 'update'
        | 'withdraw'
        | 'restore'
        | 'deregister'
        | 'get'
        | 'ready'
        | 'fetch'
        | 'post'
        | 'acquire'
        | 'campaign'
        | 'release'
        | 'resign'
        | 'write'
        | 'execute'
        | 'open'
        | 'read'
        | 'set'
        | 'number'
        | 'close';
      readonly of: string;
      readonly n?: number;
      readonly withinMs: number;
    }
  | {
      readonly kind: 'settled';
      readonly at: Time;
      readonly who: string;
      readonly id: number /** Why it was refused. */;
      readonly error?: string;
    }
  /** An event of a registration. */
  | {
      readonly kind: 'event';
      readonly at: Time;
      readonly who: string;
      readonly of: string;
      readonly event: 'lost' | 'restored' | 'replaced' | 'stalled' | 'out' | 'in';
      readonly reason?: string;
    }
  /** A watcher gave a list. */
  | {
      readonly kind: 'list';
      readonly at: Time;
      readonly who: string;
      readonly name: string;
      readonly stale: boolean;
      readonly list: Listed;
    }
  | { readonly kind: 'stale' | 'fresh'; readonly at: Time; readonly who: string; readonly name: string }
  /** A watcher ended, which it may not. */
  | { readonly kind: 'ended'; readonly at: Time; readonly who: string; readonly name: string; readonly error?: string }
  /** A lock or election was won; said after the call returned. Of a semaphore with how many may hold it. */
  | {
      readonly kind: 'held';
      readonly at: Time;
      readonly who: string;
      readonly of: string;
      readonly token: number;
      readonly permits?: number;
    }
  /** The holder looked, and still held: the look began at `at`. */
  | { readonly kind: 'holding'; readonly at: Time; readonly who: string; readonly of: string; readonly token: number }
  /** It holds no longer: let go, or told that it was lost. */
  | {
      readonly kind: 'over';
      readonly at: Time;
      readonly who: string;
      readonly of: string;
      readonly token: number;
      readonly why: 'released' | 'lost';
    }
  /** A holder wrote its token to the register, and found there what was written before. */
  | ({ readonly kind: 'wrote'; readonly at: Time; readonly who: string; readonly of: string } & Stamp & {
        readonly before?: Stamp;
      })
  /** A job that is to be done once is done: which run of it that is, and with which token. */
  | {
      readonly kind: 'ran';
      readonly at: Time;
      readonly who: string;
      readonly of: string;
      readonly token: number;
      readonly attempt: number;
    }
  /** Somebody was given what came of a job: by the run with this token. */
  | { readonly kind: 'did'; readonly at: Time; readonly who: string; readonly of: string; readonly token: number }
  /** A configuration is another one, or its reader hears of an outage or of its end: the numbers of its keys as they are now. */
  | {
      readonly kind: 'config';
      readonly at: Time;
      readonly who: string;
      readonly of: string;
      readonly stale: boolean;
      /** Of the store, which the values are of. */
      readonly revision: number;
      readonly values: readonly number[];
    }
  /** Ids were made: runs of those that follow each other, the first of each in digits, and how many they are. */
  | {
      readonly kind: 'ids';
      readonly at: Time;
      readonly who: string;
      readonly of: string;
      readonly runs: readonly (readonly [first: string, count: number])[];
    }
  /** A configuration was told that its store is another one, or was set back. */
  | { readonly kind: 'reset'; readonly at: Time; readonly who: string; readonly of: string };

/** What a register holds: the token of who wrote it, and the revision of the store at which it was written. */
export interface Stamp {
  readonly token: number;
  readonly revision: number;
}

export type Entry = Conducted | Told;
