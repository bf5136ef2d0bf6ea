/**
 * Where servers listen, as programs write it: `host`, `host:port`, `http(s)://host:port`. Messages don't show a host: a
 * misplaced password would be in it.
 *
 * @internal
 */

import { invalid, kindOf } from './shape.js';

/** One server. */
export interface Host {
  /** A name or an address, that of IPv6 in brackets. */
  readonly name: string;
  readonly port: number | undefined;
  /** What it begins with: true for `https://`, false for `http://`. */
  readonly secure: boolean | undefined;
}

const HOST = /^(?:(https?):\/\/)?(\[[0-9a-f:.]+\]|[^\s:/@?#[\]]+)(?::(\d{1,5}))?\/?$/i;
/** The same without a scheme, for servers that no URL stands for. */
const PLAIN = /^()(\[[0-9a-f:.]+\]|[^\s:/@?#[\]]+)(?::(\d{1,5}))?$/i;

/** Control characters, lone surrogates and what URLs don't allow. */
const NEVER_IN_HOST = /[\p{C}<>"\\^`{|}%]/u;

/** What one may look like, for messages. */
const WITH_SCHEME = '"host:port" or "http(s)://host:port"';

/** Reads one. `expected` says in messages what it may look like; `plain`: it has no scheme. */
export function hostOf(text: string, path: string, { expected = WITH_SCHEME, plain = false } = {}): Host {
  if (/\[[0-9a-f:.]*%/i.test(text)) throw invalid(path, 'expected an IPv6 address without a zone (from "%" on)');
  const [, scheme, name, port] = (plain ? PLAIN : HOST).exec(text.trim()) ?? [];
  if (!name || NEVER_IN_HOST.test(name)) throw invalid(path, `expected ${expected}`);
  if (port !== undefined && (Number(port) < 1 || Number(port) > 65_535)) {
    throw invalid(path, 'expected a port from 1 to 65535');
  }
  return {
    name,
    port: port === undefined ? undefined : Number(port),
    secure: scheme ? scheme.toLowerCase() === 'https' : undefined,
  };
}

/**
 * Reads `options.hosts`, a list or separated by commas; by default this machine. `read` is given each of them without
 * blanks around it.
 */
export function hostList<T>(given: unknown, read: (text: string, path: string) => T): T[] {
  const value = given === undefined ? '127.0.0.1' : given;
  const list = typeof value === 'string' ? value.split(',') : value;
  if (!Array.isArray(list)) {
    throw invalid('options.hosts', `expected "host:port", or an array of them, got ${kindOf(value)}`);
  }
  if (list.length === 0) throw invalid('options.hosts', 'expected at least one "host:port"');
  return list.map((entry: unknown, index) => {
    const path = typeof value === 'string' && list.length === 1 ? 'options.hosts' : `options.hosts[${index}]`;
    if (typeof entry !== 'string') throw invalid(path, `expected "host:port", got ${kindOf(entry)}`);
    return read(entry.trim(), path);
  });
}

/** What the hosts say of TLS, if any of them says something. All have to say the same. */
export function secureOf(hosts: readonly Pick<Host, 'secure'>[]): boolean | undefined {
  const said = new Set(hosts.map(({ secure }) => secure).filter((secure) => secure !== undefined));
  if (said.size > 1) throw invalid('options.hosts', 'expected all hosts with https:// or none');
  return [...said][0];
}
