/**
 * The URL form of the options: `etcd://user:password@host1:2379,host2:2379?prefix=/x&tls.caFile=/ca.pem`.
 *
 * Errors name an option and never show a part of the URL that may belong to a password.
 */

import { didYouMean, invalid } from '../common/shape.js';
import { type Bag, decoded, type OptionKind } from './backend.js';
import { BACKEND_NAMES, BACKENDS, type BackendName } from './backends/index.js';
import { optionsOf, unknownOption } from './options.js';

const URLS = BACKEND_NAMES.flatMap((backend) => BACKENDS[backend].urls.map((form) => ({ backend, form })));
const SCHEMES = new Map(URLS.map(({ backend, form }) => [form.slice(0, form.indexOf(':')), backend]));
const QUOTED = URLS.map(({ form }) => `"${form}"`);
const FORMS = `${QUOTED.slice(0, -1).join(', ')} or ${QUOTED.at(-1)}`;

/** The options that a URL stands for. They are checked afterwards, as an object of options is. */
export function parseUrl(url: string): Bag {
  const [head = '', name = '', authority = ''] = /^([a-z][a-z0-9+.-]*):\/\/([^/?#]*)/i.exec(url) ?? [];
  const scheme = name.toLowerCase();
  const backend = SCHEMES.get(scheme);
  if (!backend) {
    const hint =
      scheme === 'discovery+tls'
        ? '; "discovery+tls:///name" is what a client of gRPC dials: see rollcall/grpc'
        : didYouMean(scheme, [...SCHEMES.keys()]);
    throw invalid('options', `expected a URL such as ${FORMS}${hint}`);
  }
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

  const options: Bag = { backend, ...BACKENDS[backend].fromUrl({ scheme, authority, path }) };
  readQuery(query, backend, options);
  return options;
}

/** By its tag, not by its class: test runners bring a `URL` of another realm. */
export function isUrl(value: unknown): value is URL {
  return Object.prototype.toString.call(value) === '[object URL]';
}

function readQuery(query: string, backend: BackendName, options: Bag): void {
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

    const { group, inner } = grouped(name);
    const before = options[group];
    if (inner !== undefined) {
      if (before === false) throw invalid(path, `contradicts ${group}=false`);
      options[group] = { ...(typeof before === 'object' ? before : {}), [inner]: value };
    } else if (typeof kind === 'object') {
      if (value === false && before !== undefined) throw invalid(path, 'contradicts the rest of the URL');
      if (typeof before !== 'object') options[group] = value;
    } else if (Object.hasOwn(options, name)) {
      throw invalid(path, 'given twice in the URL: before and after the "?"');
    } else {
      options[name] = value;
    }
  }
}

function kindOfOption(backend: BackendName, name: string, path: string): OptionKind {
  if (name === 'backend') throw invalid(path, `given by the scheme of the URL: ${FORMS}`);
  const known = optionsOf(backend);
  const { group, inner } = grouped(name);
  const kinds = Object.hasOwn(known, group) ? known[group] : undefined;
  if (inner === undefined && kinds) return kinds;
  if (inner === undefined || typeof kinds !== 'object') throw invalid(path, unknownOption(backend, name));
  if (Object.hasOwn(kinds, inner)) return kinds[inner] as OptionKind;
  throw invalid(path, `unknown option${didYouMean(inner, Object.keys(kinds))}`);
}

/** `tls.caFile` is `caFile` of the group `tls`. */
function grouped(name: string): { group: string; inner: string | undefined } {
  const dot = name.indexOf('.');
  return dot < 0 ? { group: name, inner: undefined } : { group: name.slice(0, dot), inner: name.slice(dot + 1) };
}

function parsed(kind: OptionKind, path: string, value: string): unknown {
  if (typeof kind === 'object') return flag(path, value); // the group as a whole: on or off
  switch (kind) {
    case 'number':
      if (!/^-?\d+(\.\d+)?$/.test(value)) throw invalid(path, 'expected a whole number, got other text');
      return Number(value);
    case 'boolean':
      return flag(path, value);
    case 'off':
      if (flag(path, value)) throw invalid(path, 'expected false: a URL can only turn it off');
      return false;
    case 'object':
      throw invalid(path, 'expected in an object of options: a URL has no place for it');
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
