/**
 * The URL form of the options: `etcd://user:password@host1:2379,host2:2379?prefix=/x&tls.caFile=/ca.pem`.
 *
 * Errors name an option and never show a part of the URL that may belong to a password.
 */

import { BACKENDS, type Backend, type OptionKind, TLS_OPTIONS, unknownOption } from './options.js';
import { didYouMean, invalid } from './shape.js';

const SCHEMES = ['memory', 'etcd', 'etcds'] as const;
const FORMS = '"memory://namespace", "etcd://host:port" or "etcds://host:port"';

type Bag = Record<string, unknown>;

/** The options that a URL stands for. They are checked afterwards, as an object of options is. */
export function parseUrl(url: string): Bag {
  const [head = '', scheme = '', authority = ''] = /^([a-z][a-z0-9+.-]*):\/\/([^/?#]*)/i.exec(url) ?? [];
  const known = SCHEMES.find((name) => name === scheme.toLowerCase());
  if (!known) throw invalid('options', `expected a URL such as ${FORMS}${didYouMean(scheme, SCHEMES)}`);
  const rest = url.slice(head.length);
  if (rest.includes('@')) {
    throw invalid(
      'options',
      'expected no "@" after the hosts of the URL: write %40 there, and %2F, %3F, %23 for "/", "?", "#" in a password',
    );
  }
  if (rest.includes('#')) throw invalid('options', 'expected no "#" in the URL: write %23');

  const question = rest.indexOf('?');
  const path = question < 0 ? rest : rest.slice(0, question);
  const query = question < 0 ? '' : rest.slice(question + 1);

  const backend: Backend = known === 'etcds' ? 'etcd' : known;
  const options: Bag = { backend };
  if (known === 'etcds') options.tls = true;
  if (path !== '' && path !== '/') {
    const instead = backend === 'etcd' ? 'write the prefix as "?prefix=/…"' : 'a namespace has no "/"';
    throw invalid('options', `expected no path after the host of the URL: ${instead}`);
  }
  if (backend === 'memory') {
    if (authority.includes('@')) throw invalid('options', 'expected no user name in a URL of the memory backend');
    if (authority !== '') options.namespace = decoded('options.namespace', authority);
  } else {
    readAuthority(authority, options);
  }
  readQuery(query, backend, options);
  return options;
}

function readAuthority(authority: string, options: Bag): void {
  const at = authority.lastIndexOf('@');
  if (at >= 0) {
    const user = authority.slice(0, at);
    const colon = user.indexOf(':');
    if (colon < 0) throw invalid('options.password', 'expected "user:password" before the "@" of the URL');
    options.username = decoded('options.username', user.slice(0, colon));
    options.password = decoded('options.password', user.slice(colon + 1));
  }
  const hosts = authority.slice(at + 1);
  if (hosts !== '') options.hosts = hosts.split(',').map((host) => decoded('options.hosts', host));
}

function readQuery(query: string, backend: Backend, options: Bag): void {
  const seen = new Set<string>();
  for (const pair of query.split('&')) {
    if (pair === '') continue;
    const equals = pair.indexOf('=');
    const name = decoded('options', equals < 0 ? pair : pair.slice(0, equals));
    const path = `options.${name}`;
    const kind = kindOfOption(backend, name, path);
    if (seen.has(name)) throw invalid(path, 'given twice in the URL');
    seen.add(name);
    if (equals < 0) throw invalid(path, 'expected a value: write "name=value"');
    const value = parsed(kind, path, decoded(path, pair.slice(equals + 1)));

    if (name.startsWith('tls.')) {
      if (options.tls === false) throw invalid(path, 'contradicts tls=false');
      options.tls = { ...(typeof options.tls === 'object' ? options.tls : {}), [name.slice(4)]: value };
    } else if (name === 'tls') {
      if (value === false && options.tls !== undefined) throw invalid(path, 'contradicts the rest of the URL');
      if (typeof options.tls !== 'object') options.tls = value;
    } else if (Object.hasOwn(options, name)) {
      throw invalid(path, 'given twice in the URL: before and after the "?"');
    } else {
      options[name] = value;
    }
  }
}

function kindOfOption(backend: Backend, name: string, path: string): OptionKind {
  if (name === 'backend') throw invalid(path, `given by the scheme of the URL: ${FORMS}`);
  const own = BACKENDS[backend];
  if (name.startsWith('tls.') && Object.hasOwn(own, 'tls')) {
    const inner = name.slice(4);
    if (Object.hasOwn(TLS_OPTIONS, inner)) return TLS_OPTIONS[inner] as OptionKind;
    throw invalid(path, `unknown option${didYouMean(inner, Object.keys(TLS_OPTIONS))}`);
  }
  if (Object.hasOwn(own, name)) return own[name] as OptionKind;
  throw invalid(path, unknownOption(backend, name));
}

function parsed(kind: OptionKind, path: string, value: string): unknown {
  switch (kind) {
    case 'number':
      if (!/^-?\d+(\.\d+)?$/.test(value)) throw invalid(path, 'expected a whole number, got other text');
      return Number(value);
    case 'boolean':
    case 'group':
      return flag(path, value);
    case 'off':
      if (flag(path, value)) throw invalid(path, 'expected false: a URL can only turn it off');
      return false;
    case 'list':
      return value.split(',').filter((part) => part !== '');
    default:
      return value;
  }
}

function flag(path: string, value: string): boolean {
  if (value === 'true' || value === '1') return true;
  if (value === 'false' || value === '0') return false;
  throw invalid(path, 'expected true, false, 1 or 0, got other text');
}

/** Percent-decoding; a `+` stays a plus. */
function decoded(path: string, value: string): string {
  try {
    return decodeURIComponent(value);
  } catch {
    throw invalid(path, 'expected valid percent-encoding in the URL: write %25 for "%"');
  }
}
