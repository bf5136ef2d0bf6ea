/** Answers what the recipes refuse. */

import { Catch, type IMidwayContainer, MidwayApplicationManager } from '@midwayjs/core';
import { Refused, refusalOf, rpcErrorOf } from '../frameworks/refusals.js';

/** What is needed of the context of koa, and of the response of express. */
interface Answers {
  status?: unknown;
  set?(name: string, value: string): unknown;
}

/**
 * What a recipe refuses, such as a `BreakerOpenError`, as an answer: by its status, with `Retry-After`; over gRPC by its code. The component
 * puts it before every application that has a recipe.
 */
@Catch([Refused as never], { matchPrototype: true })
export class RefusalFilter {
  /** @internal */
  async catch(error: unknown, context: Answers, response?: Answers): Promise<unknown> {
    const refusal = refusalOf(error);
    if (!refusal) throw error;
    const { status, body, headers } = refusal;
    const isKoa = typeof context?.set === 'function' && typeof context.status !== 'function';
    const answers = isKoa ? context : response;
    if (typeof answers?.set !== 'function') throw Object.assign(new Error(body.message), rpcErrorOf(refusal));
    for (const [name, value] of Object.entries(headers)) answers.set(name, value);
    if (isKoa) answers.status = status;
    else (answers.status as (status: number) => void)(status);
    return body;
  }
}

/** Puts it before the applications of a container. */
export function filterRefusals(container: IMidwayContainer): void {
  for (const application of container.get(MidwayApplicationManager).getApplications()) {
    (application as { useFilter?(filter: unknown): void }).useFilter?.(RefusalFilter);
  }
}
