/** Where a redirect leads, and what may go with it. Source: "HTTP-redirect fetch" of the Fetch standard. */

import { type Body, bodyOf } from './body.js';

/** What is asked of a service, or of whoever a redirect names. */
export interface Asked {
  /** From its slash on. */
  readonly path: string;
  readonly method: string;
  readonly headers: Headers | undefined;
  readonly body: Body;
}

/** What follows an answer. */
export type Next =
  /** The same name, which picks anew. */
  | { readonly to: 'name'; readonly asked: Asked }
  /** Somebody else, who gets no credentials. */
  | { readonly to: 'url'; readonly url: string; readonly asked: Asked }
  /** It can't be followed. */
  | { readonly to: 'nowhere'; readonly why: string };

/** As many as a browser follows. */
export const MOST_REDIRECTS = 20;

const STATUSES = new Set([301, 302, 303, 307, 308]);
/** Headers that are for one origin alone. */
const OF_ORIGIN = ['authorization', 'proxy-authorization', 'cookie'];
/** Headers of a body that is left behind. */
const OF_BODY = ['content-encoding', 'content-language', 'content-location', 'content-type', 'content-length'];

/** Whether an answer may lead elsewhere. */
export const isRedirect = ({ status }: Response): boolean => STATUSES.has(status);

/**
 * Where an answer leads; `undefined`: it is no redirect.
 *
 * @param origins those that mean the service: what the request was sent to comes first
 */
export function redirectOf(response: Response, origins: readonly string[], asked: Asked): Next | undefined {
  if (!isRedirect(response)) return undefined;
  const location = response.headers.get('location');
  if (location === null) return undefined;
  let url: URL;
  try {
    url = new URL(location, `${origins[0]}${asked.path}`);
  } catch {
    return { to: 'nowhere', why: 'its location is no URL' };
  }
  if (url.protocol !== 'http:' && url.protocol !== 'https:') return { to: 'nowhere', why: 'it leads out of HTTP' };
  if (url.username || url.password) return { to: 'nowhere', why: 'its location has a user in it' };

  const { status } = response;
  const { method } = asked;
  const isPost = method.toUpperCase() === 'POST';
  const becomesGet =
    (status === 303 && method !== 'GET' && method !== 'HEAD') || ((status === 301 || status === 302) && isPost);
  if (!becomesGet && !asked.body.repeatable) return { to: 'nowhere', why: 'its body is a stream, which was sent' };

  const headers = new Headers(asked.headers);
  if (becomesGet) for (const name of OF_BODY) headers.delete(name);
  const next = {
    path: `${url.pathname}${url.search}`,
    method: becomesGet ? 'GET' : method,
    headers,
    body: becomesGet ? bodyOf(undefined) : asked.body,
  };
  // Who writes whole URLs takes the host from the request, or has its own address there.
  if (origins.some((origin) => url.origin === new URL(origin).origin)) return { to: 'name', asked: next };
  for (const name of OF_ORIGIN) headers.delete(name);
  return { to: 'url', url: url.href, asked: next };
}
