/** `fetch()` by name: tries, deadlines and redirects around what sends a request to one instance. */

import { now, turn } from '../common/clock.js';
import { aborted, TimeoutError, UnavailableError } from '../errors.js';
import { checked } from '../registry/call.js';
import type { Picked } from '../service/ticket.js';
import { bodyOf } from './body.js';
import { kindOfFailure, late, refused, unavailable } from './failure.js';
import { Limit } from './limit.js';
import { type CallSettings, checkInit, checkPath, HTTP_DEFAULTS, type HttpSettings, type Rest } from './options.js';
import { type Asked, isRedirect, MOST_REDIRECTS, redirectOf } from './redirect.js';
import { type CalledService, isLoading, isRepeatable, NOT_CALLED, Tries } from './retry.js';
import { addresses, type Sender, type TryInit } from './sender.js';

/** What a call goes by besides its settings. */
interface Ways {
  /** What sends it. Default: the built-in `fetch`, to the address. */
  readonly sender: Sender;
  /** Counts its tries. */
  readonly tally: { attempts: number };
}

/** `service.fetch(path, init)`. */
export function fetchOfService(
  service: CalledService,
  path: unknown,
  init: unknown,
  settings: HttpSettings = HTTP_DEFAULTS,
  { sender = addresses, tally = { attempts: 0 } }: { [way in keyof Ways]?: Ways[way] | undefined } = {},
): Promise<Response> {
  try {
    const to = checked('fetch', () => checkPath(path));
    const { how, method, headers, body, rest } = checked('fetch', () => checkInit(init, settings));
    return new Call(service, { how, rest, sender, tally }).run({ path: to, method, headers, body: bodyOf(body) });
  } catch (error) {
    return Promise.reject(error);
  }
}

/** What came of one request to the service. */
interface Answer {
  readonly response: Response;
  /** Who gave it. */
  readonly picked: Picked;
}

/** One call: requests to instances, and where redirects lead. */
class Call {
  readonly #service: CalledService;
  readonly #how: CallSettings;
  readonly #rest: Rest;
  readonly #sender: Sender;
  readonly #tally: Ways['tally'];
  /** By the clock. */
  readonly #until: number;

  constructor(service: CalledService, { how, rest, sender, tally }: Ways & { how: CallSettings; rest: Rest }) {
    this.#service = service;
    this.#how = how;
    this.#rest = rest;
    this.#sender = sender;
    this.#tally = tally;
    this.#until = how.timeoutMs === 0 ? Number.POSITIVE_INFINITY : now() + how.timeoutMs;
  }

  async run(first: Asked): Promise<Response> {
    try {
      const { signal, timeoutMs } = this.#how;
      if (signal?.aborted) throw aborted(signal, 'fetch');
      if (isLoading(this.#service)) await this.#firstList(signal, timeoutMs);
      let answer = await this.#ask(first);
      const { redirect } = this.#how;
      if (redirect !== 'manual' && isRedirect(answer.response)) answer = await this.#follow(first, answer);
      first.body.settle();
      return answer.response;
    } catch (error) {
      first.body.drop();
      throw error;
    }
  }

  /** Where redirects lead, from the first answer on. */
  async #follow(first: Asked, from: Answer): Promise<Answer> {
    let [asked, answer] = [first, from];
    for (let redirects = 0; ; redirects++) {
      const next = redirectOf(answer.response, this.#sender.origins(answer.picked), asked);
      if (!next) return redirects > 0 ? { ...answer, response: redirected(answer.response) } : answer;
      answer.response.body?.cancel().catch(() => {}); // nobody reads it
      if (this.#how.redirect === 'error') throw this.#unfollowed('init.redirect is "error"');
      if (redirects === MOST_REDIRECTS) throw this.#unfollowed(`there were ${MOST_REDIRECTS} before it`);
      if (next.to === 'nowhere') throw this.#unfollowed(next.why);
      if (next.to === 'url') return { ...answer, response: redirected(await this.#leave(next.url, next.asked)) };
      asked = next.asked;
      answer = await this.#ask(asked);
    }
  }

  async #firstList(signal: AbortSignal | undefined, timeoutMs: number): Promise<void> {
    // Without a deadline of the call that of the registry holds.
    await this.#service.ready({ signal, timeoutMs: timeoutMs || undefined }).catch((error) => {
      if (error instanceof TimeoutError && timeoutMs > 0)
        throw late(this.#service.name, timeoutMs, 'no list of instances');
      throw error;
    });
  }

  /** One request to the service, tried until there is an answer or no further try. */
  async #ask(asked: Asked): Promise<Answer> {
    const { name } = this.#service;
    const { signal, idempotent, perTryTimeoutMs, failedStatuses, timeoutMs, key, retries } = this.#how;
    const { body, headers, method, path } = asked;
    const repeatable = isRepeatable(method, idempotent, headers) && body.repeatable;
    const tries = new Tries(this.#service, { key, retries, filter: this.#sender.filter });
    // After a pause of the process, the new list and the ends of connections wait in one turn. What can't be sent twice waits
    // for the end of it, or it would be written to a connection whose other side is gone.
    if (!repeatable) await turn();
    for (let picked = tries.first(); ; ) {
      const left = this.#until - now();
      const isLast = perTryTimeoutMs === 0 || left <= perTryTimeoutMs;
      const patience = isLast ? left : perTryTimeoutMs;
      const tooLate = () => (isLast ? late(name, timeoutMs) : late(name, perTryTimeoutMs, 'no answer to a try'));
      const limit = new Limit(patience, tooLate, signal);
      let thrown: unknown;
      this.#tally.attempts++;
      try {
        const init = { ...this.#rest, method, headers, body: body.next(), redirect: 'manual', signal: limit.signal };
        const response = await limit.head(this.#sender.send(picked, path, init as TryInit, limit));
        limit.answered();
        picked.done(failedStatuses.includes(response.status) ? { failed: true } : undefined);
        return { response, picked };
      } catch (error) {
        limit.end();
        thrown = error;
      }
      const kind = limit.late ? 'late' : kindOfFailure(thrown);
      const isOurs = signal?.aborted || body.error !== undefined || kind === 'argument';
      picked.done(isOurs ? NOT_CALLED : { error: limit.late ?? thrown });
      if (isOurs) throw this.#ownFault(thrown, asked);
      const sent = kind !== 'unsent';
      if (!repeatable) await turn();
      const isOver = (kind === 'late' && isLast) || now() >= this.#until;
      const mayRepeat = !isOver && (sent ? repeatable : body.whole);
      const next = mayRepeat ? tries.next(picked, { sent, repeatable, late: kind === 'late' }) : undefined;
      if (!next) throw limit.late ?? unavailable(name, thrown, picked.endpoint.url, !sent || repeatable);
      picked = next;
    }
  }

  /** A redirect to another origin: the service has nothing to do with it any more. */
  async #leave(url: string, asked: Asked): Promise<Response> {
    const { name } = this.#service;
    const { timeoutMs, signal } = this.#how;
    const limit = new Limit(this.#until - now(), () => late(name, timeoutMs, 'a redirect: no answer'), signal);
    try {
      const { method, headers, body } = asked;
      const init = { ...this.#rest, method, headers, body: body.next(), signal: limit.signal, dispatcher: limit };
      const response = await limit.head(fetch(url, init as unknown as RequestInit));
      limit.answered();
      return response;
    } catch (error) {
      limit.end();
      if (signal?.aborted || asked.body.error) throw this.#ownFault(error, asked);
      throw limit.late ?? unavailable(name, error, new URL(url).origin, false);
    }
  }

  /** What the program did: it went away, its stream failed, or `fetch` does not take what it gave. */
  #ownFault(error: unknown, { body }: Asked): unknown {
    const { signal } = this.#how;
    if (signal?.aborted) return aborted(signal, 'fetch');
    return body.error ? body.error.thrown : refused(error);
  }

  #unfollowed(why: string): UnavailableError {
    const details = { operation: 'fetch', retryable: false };
    return new UnavailableError(`fetch: ${this.#service.name}: its redirect is not followed: ${why}`, details);
  }
}

/** The answer to what a redirect led to, as `fetch` marks it. */
function redirected(response: Response): Response {
  return response.redirected ? response : Object.defineProperty(response, 'redirected', { value: true });
}
