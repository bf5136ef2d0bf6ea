/** A limiter: rules by their names, and what subjects have had by each of them. */

import { now } from '../common/clock.js';
import { type Log, logOf } from '../common/logger.js';
import {
  abortSignal,
  choice,
  integer,
  invalid,
  isRecord,
  kindOf,
  onlyKnown,
  optional,
  shown,
  text,
  wellFormed,
} from '../common/shape.js';
import { outcomeOf } from '../common/waiting.js';
import { Named } from '../coord/named.js';
import { AbortedError } from '../errors.js';
import { Events } from '../registry/events.js';
import { type Decision, decided, msOf } from './decision.js';
import { RateLimitedError } from './errors.js';
import { decisionOf, type HeaderStyle, headersOf } from './headers.js';
import { type Instances, instancesOf } from './instances.js';
import { Meter } from './meter.js';
import type { AllowOptions, RateLimiterEvents, RateLimiterOptions } from './options.js';
import { isGroup, type RateRule, type Rule, ruleOf } from './rule.js';
import { Store } from './store.js';

const EVENTS = ['rules', 'rejected', 'degraded', 'restored', 'full', 'refused'] as const;
const OPTIONS = [
  'rules',
  'redis',
  'registry',
  'unknownRule',
  'maxKeys',
  'storeTimeoutMs',
  'prefix',
  'logger',
  'now',
] as const;
/** The longest subject, and the longest name of a rule, in UTF-16 code units. */
const LONGEST = 512;
/** When to try again where there is no rule: nobody knows. */
const UNKNOWN_RETRY_MS = 1000;
/** Of so many unknown names it is logged that they are. */
const TOLD_NAMES = 16;

/** A limiter. Enter at `createRateLimiter()`. */
export class RateLimiter {
  readonly #events: Events<RateLimiterEvents>;
  readonly #log: Log;
  readonly #now: () => number;
  readonly #maxKeys: number;
  readonly #rules: Named<Rule>;
  readonly #instances: Instances;
  readonly #store: Store | undefined;
  readonly #unknown: 'deny' | 'allow' | Meter;
  readonly #unknownNames = new Set<string>();
  #meters = new Map<string, Meter>();
  #version = -1;
  /** What `rules()` gives, and of which version. */
  #listed: Readonly<Record<string, RateRule>> = {};
  #listedOf = -1;
  /** Whether somebody listens to `rejected`: a refusal is to cost next to nothing. */
  #isHeard = false;

  /** @internal */
  constructor(options: RateLimiterOptions) {
    const given = optional('options', options);
    onlyKnown('options', given, OPTIONS);
    if (given.rules === undefined) throw invalid('options.rules', 'expected rules by their names, got undefined');
    this.#log = logOf('options.logger', given.logger);
    this.#events = new Events<RateLimiterEvents>(EVENTS, this.#log);
    this.#maxKeys = integer('options.maxKeys', given.maxKeys, 100_000, { min: 1, max: 10_000_000 });
    this.#now = (given.now as (() => number) | undefined) ?? now;
    const storeTimeoutMs = integer('options.storeTimeoutMs', given.storeTimeoutMs, 50, { min: 1, max: 60_000 });
    const prefix = text('options.prefix', given.prefix) ?? 'ratelimit:';
    if (prefix.length > 256) throw invalid('options.prefix', 'expected at most 256 characters');
    if (given.redis !== undefined) {
      this.#store = new Store('options.redis', given.redis, storeTimeoutMs, prefix, this.#now, {
        degraded: (error) => {
          this.#log.write('warn', `rate limits go without Redis: ${error.message}`);
          this.#events.deliver('degraded', error);
        },
        restored: () => {
          this.#log.write('info', 'rate limits go by Redis again');
          this.#events.deliver('restored');
        },
      });
    }
    const hasRegistry = given.registry !== undefined;
    const parse = (path: string, value: unknown) => this.#usable(path, ruleOf(path, value), hasRegistry);
    const { unknownRule } = given;
    this.#unknown = isRecord(unknownRule)
      ? this.#meter('', parse('options.unknownRule', unknownRule))
      : choice<'deny' | 'allow'>('options.unknownRule', unknownRule, ['deny', 'allow'], 'deny');
    this.#instances = instancesOf(given.registry);
    try {
      this.#rules = new Named<Rule>(
        { option: 'options.rules', one: 'rule', many: 'rules', of: 'rate limits', parse, isGroup },
        {
          log: this.#log,
          changed: () => this.#events.deliver('rules'),
          refused: (name, error) => this.#events.deliver('refused', name, error),
        },
        given.rules,
      );
    } catch (error) {
      this.#instances.close();
      throw error;
    }
  }

  /**
   * Resolves when the rules of a store were read, and the instances are known; at once without both. Until then no rule of a store is
   * known, and this process counts for one.
   *
   * @throws as `config.open()` and `ServiceCache.ready()`.
   */
  async ready(): Promise<void> {
    await Promise.all([this.#rules.ready(), this.#instances.ready()]);
  }

  /**
   * Whether the subject may have `cost` tokens of the rule, which are then taken. It never rejects for a limit, nor for Redis: that is
   * asked for `storeTimeoutMs` once, and then not until it answers again.
   *
   * @param subject who asks, such as `user:42`: from 1 to 512 characters.
   * @param cost up to the capacity of the rule, fractions too; 0 asks without taking. Default 1.
   * @throws `ERR_INVALID_ARGUMENT`, `ERR_ABORTED`.
   */
  async allow(subject: string, rule: string, cost = 1, options?: AllowOptions): Promise<Decision> {
    const meter = this.#meterOf(subject, rule, cost);
    const signal = options === undefined ? undefined : signalOf(options);
    if (signal?.aborted) throw aborted(signal);
    const store = this.#store;
    if (typeof meter === 'string' || meter.rule.mode !== 'distributed' || !store) {
      return this.#decide(meter, subject, rule, cost);
    }
    wellFormed('subject', subject);
    wellFormed('rule', rule);
    const taking = store.take(meter.rule, rule, subject, cost);
    const outcome = signal ? await outcomeOf(taking, signal) : { value: await taking };
    if (outcome === 'aborted') throw aborted(signal as AbortSignal);
    const taken = (outcome as { readonly value: Awaited<typeof taking> }).value;
    if (!taken) return this.#without(meter, subject, rule, cost, store);
    const { rate, capacity } = meter.rule;
    const lacking = taken.allowed ? 0 : Math.max(1e-6, taken.spent + cost - capacity);
    return this.#told(meter.rule, decided(rule, 'redis', capacity, taken.spent, rate / 1000, lacking), subject);
  }

  /**
   * The same at once. A rule that is `distributed` is decided here by the share of this process, as while Redis does not answer.
   *
   * @throws `ERR_INVALID_ARGUMENT`.
   */
  allowNow(subject: string, rule: string, cost = 1): Decision {
    return this.#decide(this.#meterOf(subject, rule, cost), subject, rule, cost);
  }

  /**
   * The same for who wants an error in the place of a refusal.
   *
   * @throws `RateLimitedError` (`ERR_RATE_LIMITED`), `ERR_INVALID_ARGUMENT`, `ERR_ABORTED`.
   */
  async take(subject: string, rule: string, cost = 1, options?: AllowOptions): Promise<Decision> {
    const decision = await this.allow(subject, rule, cost, options);
    if (decision.allowed) return decision;
    const message = `rule ${rule}: the limit is reached; it may be tried again in ${decision.retryAfterMs} ms`;
    throw new RateLimitedError(message, { decision, operation: 'take' });
  }

  /**
   * The headers of an HTTP response, with `Retry-After` where the request is refused; of a rule that is not known that alone.
   *
   * @param style `draft-8` of the IETF's `RateLimit` header fields, `draft-7`, or `legacy`: `X-RateLimit-*`, with the reset in seconds
   * since 1970. Default `draft-8`.
   * @throws `ERR_INVALID_ARGUMENT`.
   */
  headers(decision: Decision, style?: HeaderStyle): Record<string, string> {
    const known = decisionOf(decision);
    const unknown = this.#unknown;
    const rule = this.#rules.get(known.rule) ?? (typeof unknown === 'string' ? undefined : unknown.rule);
    return headersOf(known, rule ? msOf(rule.capacity, rule.rate / 1000) : known.resetMs, style);
  }

  /** The rules by their names, completed and frozen. The same object until one of them changes. */
  rules(): Readonly<Record<string, RateRule>> {
    if (this.#listedOf !== this.#rules.version) {
      this.#listedOf = this.#rules.version;
      const all = [...this.#rules.all].map(([name, rule]) => [name, Object.freeze({ ...rule })]);
      this.#listed = Object.freeze(Object.fromEntries(all));
    }
    return this.#listed;
  }

  on<E extends keyof RateLimiterEvents>(event: E, listener: (...args: RateLimiterEvents[E]) => void): this {
    this.#events.add(event, listener, false);
    this.#isHeard = this.#events.listenerCount('rejected') > 0;
    return this;
  }

  off<E extends keyof RateLimiterEvents>(event: E, listener: (...args: RateLimiterEvents[E]) => void): this {
    this.#events.remove(event, listener);
    this.#isHeard = this.#events.listenerCount('rejected') > 0;
    return this;
  }

  /** Hears of no other rules and instances any more, and goes on with those that it has. The clients stay the program's. */
  close(): void {
    this.#rules.close();
    this.#instances.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  /** A rule that this limiter can go by. */
  #usable(path: string, rule: Rule, hasRegistry: boolean): Rule {
    if (rule.mode === 'distributed' && !this.#store) {
      throw invalid(`${path}.mode`, '"distributed" needs options.redis');
    }
    if (rule.mode === 'shared' && !hasRegistry) throw invalid(`${path}.mode`, '"shared" needs options.registry');
    return rule;
  }

  #meter(name: string, rule: Rule): Meter {
    return new Meter(name, rule, this.#now(), this.#maxKeys, () => {
      this.#log.write(
        'warn',
        `rate limits: rule ${name} has ${this.#maxKeys} subjects; all others have one bucket together`,
      );
      this.#events.deliver('full', name);
    });
  }

  #meterOf(subject: string, rule: string, cost: number): Meter | 'deny' | 'allow' {
    if (typeof subject !== 'string' || subject.length === 0 || subject.length > LONGEST)
      throw badName('subject', subject);
    if (typeof rule !== 'string' || rule.length === 0 || rule.length > LONGEST) throw badName('rule', rule);
    if (typeof cost !== 'number' || !(cost >= 0)) throw badCost(cost);
    if (this.#version !== this.#rules.version) this.#adopt();
    const meter = this.#meters.get(rule);
    if (meter === undefined) return this.#unknownMeter(rule, cost);
    if (cost > meter.rule.capacity) throw tooMuch(cost, meter.rule);
    return meter;
  }

  #unknownMeter(rule: string, cost: number): Meter | 'deny' | 'allow' {
    const unknown = this.#unknown;
    if (!this.#unknownNames.has(rule) && this.#unknownNames.size < TOLD_NAMES) {
      this.#unknownNames.add(rule);
      this.#log.write('warn', `rate limits: there is no rule of a name that was asked for: ${wordOf(rule)}`);
    }
    if (typeof unknown !== 'string' && cost > unknown.rule.capacity) throw tooMuch(cost, unknown.rule);
    return unknown;
  }

  /** The rules have changed: those that stay keep what was consumed. */
  #adopt(): void {
    this.#version = this.#rules.version;
    const at = this.#now();
    const next = new Map<string, Meter>();
    for (const [name, rule] of this.#rules.all) {
      const meter = this.#meters.get(name) ?? this.#meter(name, rule);
      meter.change(rule, this.#among(rule, at), at);
      next.set(name, meter);
    }
    this.#meters = next;
  }

  #among(rule: Rule, at: number): number {
    return rule.mode === 'local' ? 1 : this.#instances.count(at);
  }

  /** By this process. */
  #decide(meter: Meter | 'deny' | 'allow', subject: string, name: string, cost: number): Decision {
    if (typeof meter === 'string') return this.#byNoRule(meter === 'allow', subject, name);
    const { rule } = meter;
    const at = this.#now();
    const { mode } = rule;
    const by = mode === 'distributed' ? 'fallback' : mode;
    const key = meter === this.#unknown ? `${name.length}:${name}${subject}` : subject;
    return this.#told(rule, meter.take(key, cost, this.#among(rule, at), at, by, name), subject);
  }

  /** While Redis does not answer. */
  #without(meter: Meter, subject: string, name: string, cost: number, store: Store): Decision {
    const { rule } = meter;
    if (rule.onStoreFailure === 'local') return this.#decide(meter, subject, name, cost);
    const allowed = rule.onStoreFailure === 'allow';
    const limit = Math.floor(rule.capacity);
    const retryAfterMs = allowed ? 0 : store.askedAgainInMs;
    return this.#told(
      rule,
      {
        allowed,
        limit,
        remaining: allowed ? limit : 0,
        retryAfterMs,
        resetMs: retryAfterMs,
        rule: name,
        by: 'fallback',
      },
      subject,
    );
  }

  #byNoRule(allowed: boolean, subject: string, rule: string): Decision {
    const ms = allowed ? 0 : UNKNOWN_RETRY_MS;
    const decision: Decision = { allowed, limit: 0, remaining: 0, retryAfterMs: ms, resetMs: ms, rule, by: 'unknown' };
    if (!allowed && this.#isHeard) this.#events.deliver('rejected', decision, subject);
    return decision;
  }

  #told(rule: Rule, decision: Decision, subject: string): Decision {
    if (decision.allowed) return decision;
    if (this.#isHeard) this.#events.deliver('rejected', decision, subject);
    return rule.shadow ? { ...decision, allowed: true, retryAfterMs: 0 } : decision;
  }
}

function signalOf(options: unknown): AbortSignal | undefined {
  const given = optional('options', options);
  onlyKnown('options', given, ['signal']);
  return abortSignal('options.signal', given.signal);
}

const aborted = (signal: AbortSignal): AbortedError =>
  new AbortedError('allow: aborted', { operation: 'allow', cause: signal.reason });

function badName(path: string, value: unknown): Error {
  const got = typeof value === 'string' ? `${value.length}` : kindOf(value);
  return invalid(path, `expected a string of 1 to ${LONGEST} characters, got ${got}`);
}

const badCost = (cost: unknown): Error => invalid('cost', `expected a number of 0 or more, got ${shown(cost)}`);

const tooMuch = (cost: number, { capacity }: Rule): Error =>
  invalid('cost', `expected at most the capacity of the rule, which is ${capacity}, got ${cost}`);

/** A name, when it is short and plain enough to be shown. */
const wordOf = (name: string): string => (/^[\w.:-]{1,64}$/.test(name) ? `"${name}"` : 'not a plain one');
