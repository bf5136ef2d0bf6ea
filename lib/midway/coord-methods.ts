/** The decorators of methods that run under what coord gives. */

import { HELD_TERM, type LeaderOnlyOptions, leaderMethod } from '../frameworks/leader-only.js';
import { HELD_TICK, type OncePerTickOptions, tickMethod } from '../frameworks/once-per-tick.js';
import { HELD_LOCK, lockedMethod, type WithLockOptions } from '../frameworks/with-lock.js';
import { served } from './served.js';

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
 * In classes of every scope. Without the key `coord` the application does not start.
 *
 * ```ts
 * @WithLock('report:{0}')
 * async run(id: string, @HeldLock() held?: Held) {}
 * ```
 *
 * @throws `ERR_INVALID_ARGUMENT`, also from the method: for an argument that is no string or number, is empty, or has `/` or `..`
 *   in it.
 */
export function WithLock(key: string, options?: WithLockOptions) {
  return served('@WithLock', 'coord', (place, methodsOf) => ({
    method: lockedMethod(place, key, options, (self) => methodsOf(self).locks),
  }));
}

/** The parameter gets what the method of `@WithLock()` holds, a `Held`. Whoever calls the method leaves it out. */
export function HeldLock(): ParameterDecorator {
  return (target, key, index) => HELD_LOCK.mark(target, key, index);
}

/**
 * The method runs only while this instance of the program leads an election, of which there is one campaign in an application,
 * from its start to its end, for all methods that name it; else a call resolves with `undefined` without running. Without a name it is
 * the election of the service: `<env>:<service>` of the key `coord`.
 *
 * It rejects with a `LockLostError` where this instance led no more before the method was done: another may have begun. A parameter
 * with `@HeldTerm()` gets the term: its `signal`, which also fires when the application stops, and its fencing `token`. At the end of the
 * application no method is begun any more, those that run have ten seconds, and then another leads.
 *
 * On `onTick()` of the jobs of `@midwayjs/cron` too, in classes of every scope. The log says who leads, and `CoordService.leads`.
 *
 * ```ts
 * @LeaderOnly()
 * async onTick(@HeldTerm() term?: Term) {}
 * ```
 *
 * @throws `ERR_INVALID_ARGUMENT`. Two methods of one election with other options fail the start, as does one without a name where
 *   the key `coord` has no `service`.
 */
export function LeaderOnly(election?: string, options?: LeaderOnlyOptions) {
  return served('@LeaderOnly', 'coord', (place, methodsOf) => {
    const { method, mark } = leaderMethod(place, election, options, (self) => methodsOf(self).leadership);
    return { method, leader: mark };
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
 * On `onTick()` of the jobs of `@midwayjs/cron` too, in classes of every scope.
 *
 * ```ts
 * @OncePerTick('nightly', '0 3 * * *', { timezone: 'Europe/Berlin' })
 * async onTick(@HeldTick() tick?: CronTick) {}
 * ```
 *
 * @throws `ERR_INVALID_ARGUMENT`; `ERR_UNSUPPORTED` without croner. Two methods of one name fail the start.
 */
export function OncePerTick(name: string, expression: string, options?: OncePerTickOptions) {
  return served('@OncePerTick', 'coord', (place, methodsOf) => {
    const { method, mark } = tickMethod(place, name, expression, options, (self) => methodsOf(self).ticks);
    return { method, tick: mark };
  });
}

/** The parameter gets the tick for which the method of `@OncePerTick()` runs, a `CronTick`. Whoever calls the method leaves it out. */
export function HeldTick(): ParameterDecorator {
  return (target, key, index) => HELD_TICK.mark(target, key, index);
}
