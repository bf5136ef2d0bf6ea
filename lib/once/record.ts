/** What is kept of a key, as text. Nothing here asks a store. */

import { isRecord } from '../common/shape.js';

interface Common {
  /** Who wrote it: one run, or one `resolve()`. What was written without an answer is known again by it. */
  readonly nonce: string;
  /** A digest of what the call is about. Default: none. */
  readonly fingerprint?: string | undefined;
  /** How long its end is kept, in milliseconds. */
  readonly ttlMs: number;
  /** When it is forgotten, in milliseconds since 1970, where a store has no such time itself. */
  readonly expires?: number | undefined;
}

/** Somebody runs it, or ran it when it died. */
export interface Running extends Common {
  readonly state: 'running';
  /** 1, and one more for each run before it that died. */
  readonly attempt: number;
  /** How long it is its runner's without a sign of life, in milliseconds. */
  readonly lockMs: number;
  /** It is not to be run again when its runner dies. */
  readonly isUnknown: boolean;
  /** By what a store knows whether its runner lives, if it needs that. */
  readonly owner?: string | undefined;
}

/** It was done. */
export interface Done extends Common {
  readonly state: 'done';
  /** What came of it, by the codec. None: `undefined`, or `refused`. */
  readonly result?: string | undefined;
  /** Why there is no result, though there was one. */
  readonly refused?: string | undefined;
}

/** It failed, and that is kept. */
export interface Failed extends Common {
  readonly state: 'failed';
  readonly error: KeptError;
}

/** What is kept of an error. */
export interface KeptError {
  readonly name: string;
  readonly message: string;
  /** Its own fields that are texts or numbers, such as `code` and `status`. */
  readonly fields: Readonly<Record<string, string | number>>;
}

export type OnceRecord = Running | Done | Failed;

/** What stands at a key at one moment, as a store has it. */
export interface Seen {
  /** Grows with each change of the key, through deletions too; 0: nothing stands there. */
  readonly version: bigint;
  /** `undefined`: nothing, or nothing that still counts. */
  readonly record: OnceRecord | undefined;
  /** Of a running one: whether its runner is known to live. */
  readonly isAlive: boolean;
  /** After how many milliseconds it is forgotten; of a running one after its runner's last sign of life. */
  readonly expiresInMs: number;
}

/** Nothing. */
export const NOTHING: Seen = Object.freeze({ version: 0n, record: undefined, isAlive: false, expiresInMs: 0 });

export const textOf = (record: OnceRecord): string => JSON.stringify(record);

/** The record of a text; `undefined`: it is none. */
export function recordOf(text: string): OnceRecord | undefined {
  try {
    const record = JSON.parse(text) as OnceRecord;
    if (!isRecord(record) || typeof record.nonce !== 'string' || !isPositive(record.ttlMs)) return undefined;
    if (record.fingerprint !== undefined && typeof record.fingerprint !== 'string') return undefined;
    return isWhole(record) ? record : undefined;
  } catch {
    return undefined;
  }
}

function isWhole(record: OnceRecord): boolean {
  switch (record.state) {
    case 'running':
      return isPositive(record.attempt) && isPositive(record.lockMs);
    case 'done':
      return record.result === undefined || typeof record.result === 'string';
    case 'failed':
      return typeof record.error?.message === 'string' && isRecord(record.error.fields);
    default:
      return false;
  }
}

const isPositive = (value: unknown): boolean => Number.isSafeInteger(value) && (value as number) > 0;

/** How much is kept of a message, in UTF-16 code units, where an error is larger than what is kept. */
const CUT = 1000;

/**
 * What is kept of an error, in so many bytes: of a larger one the beginning of its message. Anything can be thrown, also what throws when
 * it is read: that is left out.
 */
export function keptError(error: unknown, most: number): KeptError {
  const whole = wholeError(error);
  if (Buffer.byteLength(JSON.stringify(whole)) <= most) return whole;
  return { name: whole.name.slice(0, CUT), message: whole.message.slice(0, CUT), fields: {} };
}

function wholeError(error: unknown): KeptError {
  const fields: Record<string, string | number> = {};
  for (const field of read(() => (isError(error) ? Object.keys(error) : [])) ?? []) {
    const value = read(() => (error as unknown as Record<string, unknown>)[field]);
    if (typeof value === 'string' || (typeof value === 'number' && Number.isFinite(value))) fields[field] = value;
  }
  return {
    name: read(() => String((error as Partial<Error> | undefined)?.name ?? 'Error')) ?? 'Error',
    message: read(() => String((error as Partial<Error> | undefined)?.message ?? error)) ?? 'it has no text',
    fields,
  };
}

/** Of any realm: test runners bring others. */
const isError = (error: unknown): error is Error =>
  error instanceof Error || Object.prototype.toString.call(error) === '[object Error]';

function read<T>(what: () => T): T | undefined {
  try {
    return what();
  } catch {
    return undefined;
  }
}

/** An error of what was kept of one. */
export function errorOf({ name, message, fields }: KeptError): Error {
  const error = new Error(message);
  const own = { ...fields, name };
  for (const [field, value] of Object.entries(own)) {
    Object.defineProperty(error, field, { value, configurable: true, writable: true, enumerable: field !== 'name' });
  }
  return error;
}
