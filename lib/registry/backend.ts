/** What a backend says of itself on this side; the backends are in `backends/`. */

import type { Lender } from '../common/lending.js';
import { invalid, text } from '../common/shape.js';
import type { NativeOptions } from '../native.js';
import type { CommonOptions } from './common-options.js';

/** Options as they are given: nothing is known of their values yet. */
export type Bag = Record<string, unknown>;

/** How the text of an option in a URL is read; `object` has none. Another table: a group of options, given as `group.name=value`. */
export type OptionKind = 'number' | 'boolean' | 'text' | 'list' | 'off' | 'object' | OptionKinds;

/** The names of options, each with its kind. */
export type OptionKinds = { readonly [name: string]: OptionKind };

/** What a URL says before its query. */
export interface UrlHead {
  /** In lower case. */
  readonly scheme: string;
  /** What stands between `//` and the path, as it is written: percent-encoded, and maybe with a password. */
  readonly authority: string;
  /** From the `/` on, as it is written; empty when there is none. */
  readonly path: string;
}

/** One backend: all that is its own between `connect()` and the native side. */
export interface Backend<Options extends CommonOptions & { backend: keyof NativeOptions }> {
  /** Its own options, beside the common ones. */
  readonly options: Readonly<Record<Exclude<keyof Options, 'backend' | keyof CommonOptions>, OptionKind>>;
  /** Its default of `ttlMs`, in milliseconds, where that is not 15000: Kratos's for that registry. */
  readonly ttlMs?: number;
  /** Which of its options says that it is this backend, where none is named. */
  readonly impliedBy?: string;
  /**
   * Its default of an application's drain, in milliseconds, where that is not 250: how long it goes on answering after it has
   * left, so that callers hear of it.
   */
  readonly drainMs?: number;
  /** Its default of `allowLocal` of `service()`, where that is not false: its clients are all on one machine. */
  readonly allowLocal?: boolean;
  /** Its URLs as messages show them, one for each scheme. */
  readonly urls: readonly `${string}://${string}`[];
  /** The options that the head of a URL stands for. They are checked afterwards, by `settle`. */
  fromUrl(head: UrlHead): Bag;
  /** Checks its own options and completes them. The names of the options are known by then. */
  settle(options: Bag): NativeGroup<Options['backend']> | Promise<NativeGroup<Options['backend']>>;
  /** Whose connection it is to work on, where the options give one that is there. Called after `settle`. */
  lender?(options: Bag): Lender | undefined;
}

/** The options of one backend on the native side: the group that has its name. */
export type NativeGroup<Name extends keyof NativeOptions> = NonNullable<NativeOptions[Name]>;

/** Refuses a path, for backends whose URLs have none. */
export function noPath(path: string, instead: string): void {
  if (path === '' || path === '/') return;
  throw invalid('options', `expected no path after the host of the URL: ${instead}`);
}

/** Percent-decoding; a `+` stays a plus. */
export function decoded(path: string, value: string): string {
  try {
    return decodeURIComponent(value);
  } catch {
    throw invalid(path, 'expected valid percent-encoding in the URL: write %25 for "%"');
  }
}

/** What stands before the last `@` of an authority, as it is written, and the option that the hosts after it are. */
export function splitAuthority(authority: string): { user: string | undefined; hosts: { hosts?: string[] } } {
  const at = authority.lastIndexOf('@');
  const hosts = authority.slice(at + 1);
  return {
    user: at < 0 ? undefined : authority.slice(0, at),
    hosts: hosts === '' ? {} : { hosts: hosts.split(',').map((host) => decoded('options.hosts', host)) },
  };
}

/** The options that `user:password@host:port,host:port` stands for. */
export function userAndHosts(authority: string): Bag {
  const { user, hosts } = splitAuthority(authority);
  if (user === undefined) return hosts;
  if (user.includes(',')) {
    throw invalid(
      'options',
      'expected no "," before the "@" of the URL: write %2C in a user name or password, which stand once, before the first host',
    );
  }
  const colon = user.indexOf(':');
  if (colon < 0) throw invalid('options.password', 'expected "user:password" before the "@" of the URL');
  return {
    username: decoded('options.username', user.slice(0, colon)),
    password: decoded('options.password', user.slice(colon + 1)),
    ...hosts,
  };
}

/** `username` and `password` of options: both or neither. */
export function credentialsOf(options: Bag): { username: string | null; password: string | null } {
  const username = text('options.username', options.username) ?? null;
  const password = text('options.password', options.password) ?? null;
  if (username !== null && password === null) throw invalid('options.password', 'expected with a username');
  if (password !== null && username === null) throw invalid('options.username', 'expected with a password');
  return { username, password };
}
