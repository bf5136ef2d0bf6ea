/** Answers what the recipes refuse. */

import { type ArgumentsHost, Catch, type ExceptionFilter, Inject, type Provider } from '@nestjs/common';
import { APP_FILTER, HttpAdapterHost } from '@nestjs/core';
import { throwError } from 'rxjs';
import { Refused, refusalOf, rpcErrorOf } from './shared/index.js';

/**
 * What a recipe refuses, such as a `BreakerOpenError`, as an answer: over HTTP by its status, with `Retry-After`; over gRPC by its code, and
 * so over other transports of microservices. The modules of the recipes put it before the application; a filter of a
 * controller or a method comes before it. In a hybrid application, microservices have it with `inheritAppConfig: true`, or by
 * `@UseFilters(RefusalFilter)`.
 */
@Catch(Refused)
export class RefusalFilter implements ExceptionFilter {
  readonly #host: HttpAdapterHost | undefined;

  constructor(host?: HttpAdapterHost) {
    this.#host = host;
  }

  catch(error: unknown, host: ArgumentsHost): unknown {
    const refusal = refusalOf(error);
    if (!refusal) throw error;
    const { status, body, headers } = refusal;
    switch (host.getType<string>()) {
      case 'http': {
        const adapter = this.#host?.httpAdapter;
        if (!adapter) throw error;
        const response: unknown = host.switchToHttp().getResponse();
        if (adapter.isHeadersSent(response)) return adapter.end(response);
        for (const [name, value] of Object.entries(headers)) adapter.setHeader(response, name, value);
        return adapter.reply(response, body, status);
      }
      case 'rpc':
        return throwError(() => rpcErrorOf(refusal));
      case 'ws':
        return host.switchToWs().getClient().emit?.('exception', rpcErrorOf(refusal));
      default:
        throw error;
    }
  }
}

Inject(HttpAdapterHost)(RefusalFilter, undefined, 0);

/** Puts it before an application. */
export const REFUSAL_FILTER: Provider = { provide: APP_FILTER, useClass: RefusalFilter };
