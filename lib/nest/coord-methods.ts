/** The decorators of methods that run under what coord gives. */

import { served } from './served.js';
import {
  CoordService,
  HELD_LOCK,
  HELD_TERM,
  HELD_TICK,
  type LeaderOnlyOptions,
  leaderMethod,
  lockedMethod,
  type Method,
  markLeader,
  markTick,
  methodsToken,
  namedApart,
  type OncePerTickOptions,
  type Place,
  tickMethod,
  type WithLockOptions,
} from './shared/index.js';

/** Which client of coord. */
export interface CoordName {
  /** The name of the client of coord. Default: the default one. */
  coord?: string | undefined;
}

/**
 * The method runs under a lock, a mutex of `coord.lock`, whichever instance of the program it is called in: nowhere else does
 * what has the same key, until its promise is settled. In the key `{0}` is the first argument and `{0.id}` a property of it: a string
 * or a number.
 *
 * It waits for its turn, and rejects as `coord.lock.withLock()` does: with `ERR_TIMEOUT` after `timeoutMs`, and with a
 * `LockLostError` where the lock was lost before the method was done. With `skip: true` it resolves with `undefined` where another
 * holds the lock. A parameter with `@HeldLock()` gets what is held: its `signal` and its fencing `token`. A lock is not re-entrant:
 * a method that calls one with the same key waits for itself.
 *
 * In providers and controllers of every scope; Nest says at the start what to import where there is no `CoordModule`.
 *
 * ```ts
 * @WithLock('report:{0}')
 * async run(id: string, @HeldLock() held?: Held) {}
 * ```
 *
 * @throws `ERR_INVALID_ARGUMENT`, also from the method: for an argument that is no string or number, is empty, or has `/` or `..`
 *   in it.
 */
export function WithLock(key: string, options?: WithLockOptions & CoordName) {
  const [coord, how] = namedApart('@WithLock', options, 'coord');
  return decorator('@WithLock', coord, (place, serviceOf) =>
    lockedMethod(place, key, how, (self) => CoordService.methodsOf(serviceOf(self)).locks),
  );
}

/** The parameter gets what the method of `@WithLock()` holds, a `Held`. Whoever calls the method leaves it out. */
export function HeldLock(): ParameterDecorator {
  return (target, key, index) => HELD_LOCK.mark(target, key, index);
}

/**
 * The method runs only while this instance of the program leads an election, of which there is one campaign in an application,
 * from its start to its end, for all methods that name it; else a call resolves with `undefined` without running. Without a name it is the election of
 * the service: `<env>:<service>` of the options of `CoordModule`.
 *
 * It rejects with a `LockLostError` where this instance led no more before the method was done: another may have begun. A parameter
 * with `@HeldTerm()` gets the term: its `signal`, which also fires when the application stops, and its fencing `token`. At the end of the
 * application no method is begun any more, those that run have ten seconds, and then another leads.
 *
 * On `@Cron()` of `@nestjs/schedule`, in any order. The log says who leads, and `CoordService.leads`.
 *
 * ```ts
 * @Cron('0 3 * * *')
 * @LeaderOnly()
 * async nightly(@HeldTerm() term?: Term) {}
 * ```
 *
 * @throws `ERR_INVALID_ARGUMENT`. Two methods of one election with other options fail the start, as does one without a name where
 *   `CoordModule` has no `service`.
 */
export function LeaderOnly(election?: string, options?: LeaderOnlyOptions & CoordName) {
  const [coord, how] = namedApart('@LeaderOnly', options, 'coord');
  return decorator('@LeaderOnly', coord, (place, serviceOf) => {
    const leadershipOf = (self: object) => CoordService.methodsOf(serviceOf(self)).leadership;
    const { method, mark } = leaderMethod(place, election, how, leadershipOf);
    markLeader(method, { ...mark, coord });
    return method;
  });
}

/** The parameter gets the term in which the method of `@LeaderOnly()` runs, a `Term`. Whoever calls the method leaves it out. */
export function HeldTerm(): ParameterDecorator {
  return (target, key, index) => HELD_TERM.mark(target, key, index);
}

/**
 * The method runs at most once for each tick among all instances of the program that a scheduler calls it in, whoever leads: who claims the tick in
 * the store first runs it, and a tick stays claimed for ever. Elsewhere a call resolves with `undefined` without running.
 *
 * A scheduler does not say for which tick it calls, so the expression says it here once more: a call is of the latest tick by the clock of
 * this process, and already of one that is due within 100 ms. Give it the expression of the scheduler and its time zone; that is `UTC` here
 * unless `timezone` says otherwise, and for most schedulers that of the machine. `name` is one part of a key: the record of the ticks lies
 * at `/cron/{name}`, and is that of `coord.cron()` of this name. The package `croner` reads the expression.
 *
 * A store that is away is asked again until the next tick is due, for a minute at the most. It rejects with a `LockLostError` where the
 * claim was lost before the method was done. A parameter with `@HeldTick()` gets the tick: when it was due, its fencing `token`, its
 * `signal`, which also fires when the application stops, and which ticks were `missed`.
 *
 * With `@Cron()` of `@nestjs/schedule`, in any order.
 *
 * ```ts
 * @Cron('0 3 * * *', { timeZone: 'Europe/Berlin' })
 * @OncePerTick('nightly', '0 3 * * *', { timezone: 'Europe/Berlin' })
 * async nightly(@HeldTick() tick?: CronTick) {}
 * ```
 *
 * @throws `ERR_INVALID_ARGUMENT`; `ERR_UNSUPPORTED` without croner. Two methods of one name fail the start.
 */
export function OncePerTick(name: string, expression: string, options?: OncePerTickOptions & CoordName) {
  const [coord, how] = namedApart('@OncePerTick', options, 'coord');
  return decorator('@OncePerTick', coord, (place, serviceOf) => {
    const ticksOf = (self: object) => CoordService.methodsOf(serviceOf(self)).ticks;
    const { method, mark } = tickMethod(place, name, expression, how, ticksOf);
    markTick(method, { ...mark, coord });
    return method;
  });
}

/** The parameter gets the tick for which the method of `@OncePerTick()` runs, a `CronTick`. Whoever calls the method leaves it out. */
export function HeldTick(): ParameterDecorator {
  return (target, key, index) => HELD_TICK.mark(target, key, index);
}

/** `serviceOf` gives the service that Nest has injected. */
function decorator(
  name: string,
  coord: string | undefined,
  made: (place: Place, serviceOf: (self: object) => CoordService) => Method,
) {
  return served<CoordService>(name, { token: methodsToken(coord), module: 'CoordModule' }, made);
}
