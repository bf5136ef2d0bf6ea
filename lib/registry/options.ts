/** The way from the options of `connect()` to what the native side takes: checked, and with every default. */

import { constants } from 'node:os';
import type { Lender } from '../common/lending.js';
import { type Log, logOf } from '../common/logger.js';
import {
  abortSignal,
  boolean,
  choice,
  didYouMean,
  integer,
  invalid,
  kindOf,
  onlyKnown,
  optional,
  record,
  text,
} from '../common/shape.js';
import type { NativeOptions } from '../native.js';
import type { NativeGroup, OptionKind, OptionKinds } from './backend.js';
import { BACKEND_NAMES, BACKENDS, type BackendName } from './backends/index.js';
import type { CommonOptions } from './common-options.js';
import { observerOf, type RegistryObserver } from './observe.js';

/** The environment variable that stands in for `advertiseHost`. */
const ADVERTISE = 'ROLLCALL_ADVERTISE_HOST';

/** Options that were checked and completed. */
export interface Settings {
  readonly native: NativeOptions;
  readonly lazy: boolean;
  readonly signals: readonly NodeJS.Signals[];
  readonly log: Log;
  /** Whose connection the registry works on; `undefined` for its own. */
  readonly lender: Lender | undefined;
  readonly observe: RegistryObserver | undefined;
}

/** Kinds of the common options. */
const COMMON = {
  ttlMs: 'number',
  connectTimeoutMs: 'number',
  timeoutMs: 'number',
  lazy: 'boolean',
  stallTimeoutMs: 'number',
  emptyGraceMs: 'number',
  advertiseHost: 'text',
  signals: 'list',
  logger: 'off',
  observe: 'off',
} as const satisfies Record<keyof CommonOptions, OptionKind>;

/** Every option of a backend, with its kind. */
export function optionsOf(backend: BackendName): OptionKinds {
  return { ...COMMON, ...BACKENDS[backend].options };
}

/** Why an option that `backend` doesn't have is refused. */
export function unknownOption(backend: BackendName, key: string): string {
  const others = BACKEND_NAMES.filter((name) => Object.hasOwn(BACKENDS[name].options, key));
  if (others.length > 0) return `not an option of the ${backend} backend, only of ${others.join(' and ')}`;
  return `unknown option${didYouMean(key, Object.keys(optionsOf(backend)))}`;
}

/** Checks and completes options; reads the files that they name. */
export async function settle(given: unknown): Promise<Settings> {
  const options = record('options', given, 'a URL or an object with `backend`');
  const backend = choice('options.backend', options.backend ?? impliedBackend(options), BACKEND_NAMES);
  onlyKnown('options', options, ['backend', ...Object.keys(optionsOf(backend))], (key) => unknownOption(backend, key));

  const log = logOf('options.logger', options.logger);
  const advertiseHost =
    advertised('options.advertiseHost', options.advertiseHost) ?? advertised(ADVERTISE, process.env[ADVERTISE]);
  return {
    native: {
      backend,
      ttlMs: integer('options.ttlMs', options.ttlMs, BACKENDS[backend].ttlMs ?? 15_000, { min: 1000 }),
      connectTimeoutMs: integer('options.connectTimeoutMs', options.connectTimeoutMs, 10_000, { min: 1 }),
      timeoutMs: integer('options.timeoutMs', options.timeoutMs, 10_000, { min: 1 }),
      stallTimeoutMs: stallTimeout(options.stallTimeoutMs, 30_000),
      emptyGraceMs: integer('options.emptyGraceMs', options.emptyGraceMs, 15_000, { min: 0 }),
      advertiseHost: advertiseHost ?? null,
      logLevel: log.level,
      ...groups(backend, await BACKENDS[backend].settle(options)),
    },
    lazy: boolean('options.lazy', options.lazy, false),
    signals: signalNames(options.signals),
    log,
    lender: BACKENDS[backend].lender?.(options),
    observe: observerOf(options.observe),
  };
}

/** The backend that an option of its own stands for. */
function impliedBackend(options: Readonly<Record<string, unknown>>): BackendName | undefined {
  return BACKEND_NAMES.find((name) => {
    const { impliedBy } = BACKENDS[name];
    return impliedBy !== undefined && options[impliedBy] !== undefined;
  });
}

type Groups = { [Name in BackendName]: NativeGroup<Name> | null };

/** The options of one backend, and none of the others. */
function groups(backend: BackendName, own: NativeGroup<BackendName>): Groups {
  return { ...(Object.fromEntries(BACKEND_NAMES.map((name) => [name, null])) as Groups), [backend]: own };
}

/** Loaded at use: importing the package should cost next to nothing. */
function isIPv6(address: string): boolean {
  return (require('node:net') as typeof import('node:net')).isIPv6(address);
}

/** A host as it stands in a URL, without a port; an empty environment variable is none. */
function advertised(path: string, value: unknown): string | undefined {
  const host = path === ADVERTISE && value === '' ? undefined : text(path, value);
  if (host === undefined) return undefined;
  const address = host.replace(/^\[(.*)\]$/, '$1');
  if (/[\s/?#@\\%]/.test(host) || (address.includes(':') && !isIPv6(address))) {
    throw invalid(path, `expected a host name or address without a port, such as "10.0.0.1"`);
  }
  return host;
}

/** `options.stallTimeoutMs`, of a registry or of one registration. */
export function stallTimeout(value: unknown, fallback: number): number {
  return integer('options.stallTimeoutMs', value, fallback, { min: 100, zeroIsOff: true });
}

/** `options.timeoutMs` of one call. */
export function callTimeout(value: unknown, fallback: number): number {
  return integer('options.timeoutMs', value, fallback, { min: 1 });
}

/** The drain of an application whose program gives none. */
export const defaultDrain = (backend: BackendName): number => BACKENDS[backend].drainMs ?? 250;

/** Options of `deregister()` and `close()`, completed. */
export interface Removal {
  readonly drainMs: number;
  readonly timeoutMs: number;
  /** Of this call alone: others that share the removal go on waiting. */
  readonly signal: AbortSignal | undefined;
}

/** Checks and completes the options of `deregister()` and `close()`. */
export function removal(options: unknown, timeoutMs: number): Removal {
  const given = optional('options', options);
  onlyKnown('options', given, ['drainMs', 'timeoutMs', 'signal']);
  return {
    drainMs: drainTime(given.drainMs),
    timeoutMs: callTimeout(given.timeoutMs, timeoutMs),
    signal: abortSignal('options.signal', given.signal),
  };
}

/** `options.drainMs` of a removal. */
function drainTime(value: unknown): number {
  return integer('options.drainMs', value, 0, { min: 0 });
}

/** `options.signals`. */
export function signalNames(value: unknown): NodeJS.Signals[] {
  if (value === undefined) return [];
  if (!Array.isArray(value))
    throw invalid('options.signals', `expected an array of signal names, got ${kindOf(value)}`);
  const known = Object.keys(constants.signals);
  const names = value.map((name: unknown, index) => {
    const path = `options.signals[${index}]`;
    if (typeof name !== 'string') throw invalid(path, `expected a signal name such as "SIGTERM", got ${kindOf(name)}`);
    if (!known.includes(name)) throw invalid(path, `expected the name of a signal${didYouMean(name, known)}`);
    if (name === 'SIGKILL' || name === 'SIGSTOP') {
      throw invalid(path, `expected a signal that can be caught, not "${name}"`);
    }
    return name as NodeJS.Signals;
  });
  return [...new Set(names)];
}
