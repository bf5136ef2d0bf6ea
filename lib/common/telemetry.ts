/** What OpenTelemetry is told of calls, by the shapes of `@opentelemetry/api` 1.x: the package is not needed. */

/** What a span or a measurement is about. */
export interface Attributes {
  [name: string]: string | number | boolean | undefined;
}

/** A tracer of `@opentelemetry/api` 1.x, as far as it is used. */
export interface TracerLike {
  startSpan(
    name: string,
    options?: { kind?: number; attributes?: Attributes },
  ): {
    setAttribute(name: string, value: string | number | boolean): unknown;
    setStatus(status: { code: number; message?: string }): unknown;
    recordException(error: Error): unknown;
    end(): void;
  };
}

/** An instrument that is asked, of `@opentelemetry/api` 1.x, as far as it is used. */
export interface ObservableLike {
  addCallback(asked: (result: { observe(value: number, attributes?: Attributes): void }) => void): void;
}

/** A meter of `@opentelemetry/api` 1.x, as far as it is used. */
export interface MeterLike {
  createHistogram(
    name: string,
    options?: { unit?: string; description?: string },
  ): { record(value: number, attributes?: Attributes): void };
  createObservableCounter?(name: string, options?: { description?: string }): ObservableLike;
  createObservableGauge?(name: string, options?: { description?: string }): ObservableLike;
}

// Of `@opentelemetry/api`: SpanKind.CLIENT and SpanStatusCode.ERROR.
const KIND_CLIENT = 2;
const STATUS_ERROR = 2;

/** Begins the span of a call, if there is a tracer. Gives what ends it: with its outcome, and with the error if it failed. */
export function spanOf(
  tracer: TracerLike | undefined,
  name: string,
  attributes: Attributes,
): (outcome: Attributes, error: Error | undefined) => void {
  const span = tracer?.startSpan(name, { kind: KIND_CLIENT, attributes });
  return (outcome, error) => {
    if (!span) return;
    for (const [key, value] of Object.entries(outcome)) if (value !== undefined) span.setAttribute(key, value);
    if (error) {
      span.recordException(error);
      span.setStatus({ code: STATUS_ERROR, message: error.message });
    }
    span.end();
  };
}
