/** How the refusals of the recipes reach who has called over HTTP or gRPC. */

/** An answer in the place of what was asked for. */
export interface Refusal {
  /** Of HTTP. */
  readonly status: number;
  /** The number of the code of gRPC. */
  readonly grpc: number;
  /** What becomes the body, as Nest and Midway answer other errors. */
  readonly body: { readonly statusCode: number; readonly code: string; readonly message: string };
  readonly headers: Readonly<Record<string, string>>;
}

/** How an error is answered. */
export interface Kind {
  readonly status: number;
  readonly grpc: number;
  /** For who calls: the error's own says what the program calls its parts. */
  readonly message: string;
}

/** By the code of the error. */
const KINDS: Readonly<Record<string, Kind>> = {
  ERR_BREAKER_OPEN: { status: 503, grpc: 14, message: 'What is needed for this does not answer at the moment' },
  ERR_RATE_LIMITED: { status: 429, grpc: 8, message: 'Too many requests' },
  ERR_IN_PROGRESS: { status: 409, grpc: 10, message: 'A request with this Idempotency-Key is under way' },
  ERR_TAKEN_OVER: { status: 409, grpc: 10, message: 'This was taken over by another request with its Idempotency-Key' },
  ERR_OUTCOME_UNKNOWN: { status: 409, grpc: 9, message: 'It is not known whether this was done' },
  ERR_KEY_REUSED: { status: 422, grpc: 9, message: 'This Idempotency-Key was used for another request' },
};

/** On an error: how it is answered, whatever its code. */
const KIND = Symbol.for('rollcall:refusal');

/** The same error, to be answered in this way. */
export function refusedAs(error: Error, kind: Kind): Error {
  return Object.defineProperty(error, KIND, { value: kind, configurable: true });
}

/** What is answered; `undefined` for errors that are none of a recipe. */
export function refusalOf(error: unknown): Refusal | undefined {
  const { code, retryAfterMs } = Object(error) as { code?: unknown; retryAfterMs?: unknown };
  const own = (Object(error) as { [KIND]?: Kind })[KIND];
  const kind = own ?? (typeof code === 'string' && Object.hasOwn(KINDS, code) ? KINDS[code] : undefined);
  if (!kind) return undefined;
  const { status, grpc, message } = kind;
  const headers: Record<string, string> = {};
  if (typeof retryAfterMs === 'number') headers['Retry-After'] = String(Math.max(1, Math.ceil(retryAfterMs / 1000)));
  return { status, grpc, headers, body: { statusCode: status, code: code as string, message } };
}

/** What filters of exceptions catch: by the code, so that no recipe is loaded for it. */
// biome-ignore lint/complexity/noStaticOnlyClass: filters are given a class, and ask it by `instanceof`
export class Refused {
  static [Symbol.hasInstance](error: unknown): boolean {
    return error instanceof Error && refusalOf(error) !== undefined;
  }
}

/** How an error goes over gRPC, and over other transports that send what is thrown. */
export function rpcErrorOf({ grpc, body }: Refusal): object {
  return { code: grpc, status: 'error', message: body.message, details: body.message, reason: body.code };
}
