/** The service config that is pushed to a channel: the program's own, with a policy where it names none. */

import { isRecord } from '../common/shape.js';
import type { ServiceConfig } from './compat.js';

/** What is pushed, and whether the first policy in it is one of ours. */
export interface Pushed {
  /** `null`: the channel takes what is in its own option, as it has read it. */
  readonly config: ServiceConfig | null;
  readonly isOurs: boolean;
}

/**
 * Puts `policies` in where the channel's option `grpc.service_config` names no policy, since what a resolver pushes takes the
 * place of that option as a whole.
 */
export function merged(option: unknown, policies: readonly Record<string, unknown>[]): Pushed {
  const given = parsed(option);
  const own = given.loadBalancingConfig;
  if (Array.isArray(own) && own.length > 0) return { config: null, isOurs: isOurs(own) };
  const methods = Array.isArray(given.methodConfig) ? given.methodConfig.map(method) : [];
  const config = { ...given, loadBalancingConfig: policies, methodConfig: methods };
  return { config, isOurs: isOurs(policies) };
}

/** Whether it would take an empty list. */
function isOurs(policies: readonly unknown[]): boolean {
  const [first] = policies;
  return isRecord(first) && Object.keys(first)[0]?.startsWith('rollcall_') === true;
}

/** The channel has read it before and refused what is none. */
function parsed(option: unknown): Record<string, unknown> {
  if (typeof option !== 'string') return {};
  const value: unknown = JSON.parse(option);
  return isRecord(value) ? value : {};
}

/** The form in which a channel keeps what it reads from its option. */
function method(value: unknown): unknown {
  if (!isRecord(value) || typeof value.timeout !== 'string') return value;
  const [, seconds = '0', fraction = ''] = /^(\d+)(?:\.(\d{1,9}))?s$/.exec(value.timeout) ?? [];
  return { ...value, timeout: { seconds: Number(seconds), nanos: Number(fraction.padEnd(9, '0')) } };
}
