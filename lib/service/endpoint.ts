/** One address of an instance, taken apart. */

/** Where an instance answers. Frozen. */
export interface Endpoint {
  /** In lower case, such as `grpc`. */
  readonly scheme: string;
  /** A name or an address; of IPv6 without brackets. Empty for a Unix socket. */
  readonly host: string;
  /** 0 for a Unix socket. */
  readonly port: number;
  /** What stands after the port, from its slash on; of a Unix socket the file. */
  readonly path?: string;
  /** TLS: the scheme is `grpcs`, `https`, `wss` or the like, or the query says `isSecure=true`, as old Kratos wrote it. */
  readonly secure: boolean;
  /** As the instance has it in its record. */
  readonly url: string;
}

const SECURE = new Set(['grpcs', 'https', 'wss', 'tls', 'ssl', 'rediss', 'amqps', 'mqtts']);
/** A scheme, a host or an address in brackets, a port, and the rest. `new URL()` takes ten times as long. */
const ADDRESS = /^([a-z][a-z0-9+.-]*):\/\/(?:\[([0-9a-f:.]+(?:%[\w.~-]+)?)\]|([^\s/:?#@[\]]+)):(\d{1,5})([/?#].*)?$/i;
const SOCKET = /^unix:(?:\/\/)?(\/[^/?#][^?#]*)$/i;

/** Takes an endpoint apart; `undefined` when it names no host and port, and no socket, that can be called. */
export function parseEndpoint(url: string): Endpoint | undefined {
  const found = ADDRESS.exec(url);
  if (!found) {
    const path = SOCKET.exec(url)?.[1];
    if (path === undefined) return undefined;
    return Object.freeze({ scheme: 'unix', host: '', port: 0, path, secure: false, url });
  }
  const [, scheme = '', six, name = '', digits, rest = ''] = found;
  const port = Number(digits);
  if (port === 0 || port > 65_535) return undefined;
  const lower = scheme.toLowerCase();
  const secure = SECURE.has(lower) || /[?&]isSecure=true(?:&|#|$)/.test(rest);
  const path = /^\/[^?#]*/.exec(rest)?.[0];
  const parts = { scheme: lower, host: six ?? name, port };
  return Object.freeze(path && path !== '/' ? { ...parts, path, secure, url } : { ...parts, secure, url });
}

/**
 * Whether it means something else on every machine: a Unix socket, a loopback or link-local address. Whoever may write to
 * the registry could point a caller at its own machine with it.
 */
export function isLocal({ scheme, host }: Endpoint): boolean {
  if (scheme === 'unix') return true;
  const name = host.toLowerCase().replace(/\.$/, '');
  if (name === 'localhost' || name.endsWith('.localhost')) return true;
  const four = /^(?:::ffff:)?(\d+)\.(\d+)\.\d+\.\d+$/.exec(name);
  if (four) return four[1] === '127' || four[1] === '0' || (four[1] === '169' && four[2] === '254');
  if (!name.includes(':')) return /^[\d.]+$|^0x[\da-f.x]+$/.test(name); // 2130706433 is 127.0.0.1 to most resolvers
  // `::1` and `::` in all their spellings, what stands for an IPv4 address in hexadecimal, and fe80::/10.
  return /^[0:]*:0*1?$/.test(name) || /^::ffff:(?:7f|a9fe|0{1,4}:)/.test(name) || /^fe[89ab]/.test(name);
}
