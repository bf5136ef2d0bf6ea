/**
 * A handler of undici between two that may be of other generations. undici 6 calls `onConnect`, `onHeaders`, …; undici 8
 * `onRequestStart`, `onResponseStart`, …; undici 7 knows both. A relay can be called either way, and calls the handler that it
 * stands before as that one wants to be called.
 */

/** What a request can be controlled by, since undici 7. */
interface Controller {
  readonly aborted: boolean;
  readonly paused: boolean;
  rawHeaders?: unknown;
  rawTrailers?: unknown;
  abort(reason: unknown): void;
  pause(): void;
  resume(): void;
}

/** Names and values of headers in turns. */
type RawHeaders = (Buffer | Buffer[])[];
type ParsedHeaders = Record<string, string | string[]>;

/** Called as undici 6 calls it. */
interface OldHandler {
  onConnect?(abort: (reason?: unknown) => void, context?: unknown): void;
  onUpgrade?(status: number, headers: RawHeaders, socket: unknown): unknown;
  onHeaders?(status: number, headers: RawHeaders, resume: () => void, text?: string): unknown;
  onData?(chunk: Buffer): unknown;
  onComplete?(trailers: RawHeaders): void;
  onError?(error: unknown): void;
}

/** Called as undici 8 calls it. */
interface NewHandler {
  onRequestStart(controller: Controller, context?: unknown): void;
  onRequestUpgrade?(controller: Controller, status: number, headers: ParsedHeaders, socket: unknown): unknown;
  onResponseStart?(controller: Controller, status: number, headers: ParsedHeaders, text?: string): void;
  onResponseData?(controller: Controller, chunk: Buffer): void;
  onResponseEnd?(controller: Controller, trailers: ParsedHeaders): void;
  onResponseError?(controller: Controller, error: unknown): void;
}

/** What both have. */
interface AnyHandler {
  onBodySent?(chunk: unknown): unknown;
  onRequestSent?(): unknown;
  onResponseStarted?(): unknown;
}

/** Who wants to know how it goes. */
export interface Watch {
  /** It has a connection and is about to be written: why it is not to be, if so. Asked as the last thing before. */
  refusal(): Error | undefined;
  /** The head of the answer. */
  head(status: number): void;
  /**
   * It failed. `sent`: the request may have been sent, or a part of it. `isAborted`: who made the request ended it. Gives
   * whether the handler is not to hear of it.
   */
  failed(error: unknown, how: { sent: boolean; isAborted: boolean }): boolean;
}

/** Between a pool and a handler, for one dispatch. */
export class Relay {
  readonly #handler: AnyHandler & OldHandler;
  readonly #newer: NewHandler | undefined;
  readonly #watch: Watch;
  #controller: Controller | undefined;
  #own: OwnController | undefined;
  #refusal: Error | undefined;

  constructor(handler: object, watch: Watch) {
    this.#handler = handler as AnyHandler & OldHandler;
    this.#newer = newerOf(handler);
    this.#watch = watch;
  }

  onConnect(abort: (reason?: unknown) => void, context?: unknown): void {
    this.#own = new OwnController(abort);
    this.onRequestStart(this.#own, context);
  }

  onUpgrade(status: number, headers: RawHeaders, socket: unknown): unknown {
    (this.#own as OwnController).rawHeaders = headers;
    return this.#upgrade(status, headers, undefined, socket);
  }

  onHeaders(status: number, headers: RawHeaders, resume: () => void, text?: string): boolean {
    const own = this.#own as OwnController;
    own.whenResumed = resume;
    own.rawHeaders = headers;
    this.#head(status, headers, undefined, text);
    return !own.paused;
  }

  onData(chunk: Buffer): boolean {
    const own = this.#own as OwnController;
    this.onResponseData(own, chunk);
    return !own.paused;
  }

  onComplete(trailers: RawHeaders | null): void {
    const own = this.#own as OwnController;
    own.rawTrailers = trailers ?? [];
    this.onResponseEnd(own, undefined);
  }

  onError(error: unknown): void {
    this.onResponseError(this.#own, error);
  }

  onRequestStart(controller: Controller, context?: unknown): void {
    this.#refusal = this.#watch.refusal();
    if (this.#refusal) {
      controller.abort(this.#refusal); // nothing is written, and the connection is closed
      return;
    }
    this.#controller = controller;
    if (this.#newer) this.#newer.onRequestStart(controller, context);
    else this.#handler.onConnect?.((reason) => controller.abort(reason), context);
  }

  onRequestUpgrade(controller: Controller, status: number, headers: ParsedHeaders, socket: unknown): unknown {
    return this.#upgrade(status, rawOf(controller.rawHeaders, headers), headers, socket);
  }

  onResponseStart(controller: Controller, status: number, headers: ParsedHeaders, text?: string): void {
    this.#head(status, rawOf(controller.rawHeaders, headers), headers, text);
  }

  onResponseData(controller: Controller, chunk: Buffer): void {
    if (this.#newer) this.#newer.onResponseData?.(controller, chunk);
    else if (this.#handler.onData?.(chunk) === false) controller.pause();
  }

  onResponseEnd(controller: Controller, trailers: ParsedHeaders | undefined): void {
    const raw = rawOf(controller.rawTrailers, trailers);
    if (this.#newer) this.#newer.onResponseEnd?.(controller, trailers ?? parsedOf(raw));
    else this.#handler.onComplete?.(raw);
  }

  onResponseError(controller: Controller | undefined, error: unknown): void {
    const known = this.#controller ?? controller;
    const isAborted = !this.#refusal && (known?.aborted ?? false);
    if (this.#watch.failed(error, { sent: this.#controller !== undefined, isAborted })) return;
    tellFailure(this.#handler, error, this.#refusal ? undefined : known);
  }

  onBodySent(chunk: unknown): void {
    this.#handler.onBodySent?.(chunk);
  }

  onRequestSent(): void {
    this.#handler.onRequestSent?.();
  }

  onResponseStarted(): void {
    this.#handler.onResponseStarted?.();
  }

  #upgrade(status: number, raw: RawHeaders, headers: ParsedHeaders | undefined, socket: unknown): unknown {
    this.#watch.head(status);
    if (!this.#newer) return this.#handler.onUpgrade?.(status, raw, socket);
    return this.#newer.onRequestUpgrade?.(this.#controller as Controller, status, headers ?? parsedOf(raw), socket);
  }

  #head(status: number, raw: RawHeaders, headers: ParsedHeaders | undefined, text: string | undefined): void {
    if (status >= 200) this.#watch.head(status);
    const controller = this.#controller as Controller;
    if (this.#newer) this.#newer.onResponseStart?.(controller, status, headers ?? parsedOf(raw), text);
    else if (this.#handler.onHeaders?.(status, raw, () => controller.resume(), text) === false) controller.pause();
  }
}

/** Tells a handler that its request failed. */
export function tellFailure(handler: object, error: unknown, controller?: Controller): void {
  const newer = newerOf(handler);
  if (newer) newer.onResponseError?.(controller ?? new OwnController(() => {}), error);
  else (handler as OldHandler).onError?.(error);
}

function newerOf(handler: object): NewHandler | undefined {
  return typeof (handler as Partial<NewHandler>).onRequestStart === 'function' ? (handler as NewHandler) : undefined;
}

/** For a handler that wants one, over an undici that has none. */
class OwnController implements Controller {
  aborted = false;
  paused = false;
  reason: unknown = null;
  rawHeaders: RawHeaders = [];
  rawTrailers: RawHeaders = [];
  whenResumed: (() => void) | undefined;
  readonly #abort: (reason?: unknown) => void;

  constructor(abort: (reason?: unknown) => void) {
    this.#abort = abort;
  }

  abort(reason: unknown): void {
    if (this.aborted) return;
    this.aborted = true;
    this.reason = reason;
    this.#abort(reason);
  }

  pause(): void {
    this.paused = true;
  }

  resume(): void {
    if (!this.paused) return;
    this.paused = false;
    this.whenResumed?.();
  }
}

/** As they came, where that is known; else of what was made of them. */
function rawOf(raw: unknown, parsed: ParsedHeaders | undefined): RawHeaders {
  if (Array.isArray(raw)) return raw as RawHeaders;
  const bytes = (value: string) => Buffer.from(value, 'latin1');
  return Object.entries(parsed ?? {}).flatMap(([name, value]) => [
    bytes(name),
    Array.isArray(value) ? value.map(bytes) : bytes(value),
  ]);
}

/** As undici makes them: names in lower case, a list where a name stands several times. */
function parsedOf(raw: RawHeaders): ParsedHeaders {
  const parsed: ParsedHeaders = Object.create(null);
  for (let at = 0; at + 1 < raw.length; at += 2) {
    const name = String(raw[at]).toLowerCase();
    const value = raw[at + 1] as Buffer | Buffer[];
    const known = parsed[name];
    const texts = (Array.isArray(value) ? value : [value]).map((one) => one.toString('latin1'));
    const all = known === undefined ? texts : [...(Array.isArray(known) ? known : [known]), ...texts];
    parsed[name] = all.length === 1 ? (all[0] as string) : all;
  }
  return parsed;
}
