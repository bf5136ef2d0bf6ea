/** The channel options of grpc: what they mean here. */

import { invalid, kindOf, MAX_MS, optional, text } from '../../common/shape.js';

/** What the channel options say; absent where they say nothing. */
export interface ChannelSettings {
  keepAliveMs?: number;
  keepAliveTimeoutMs?: number;
  keepAliveWhileIdle?: boolean;
  maxMessageBytes?: number;
  maxRequestBytes?: number;
  serverName?: string | undefined;
  authority?: string | undefined;
  userAgent?: string;
}

/** They tune the inside of grpc-js, or of the C core before it, or servers: nothing here corresponds to them. */
const WITHOUT_EFFECT: ReadonlySet<string> = new Set([
  'grpc.max_concurrent_streams',
  'grpc.initial_reconnect_backoff_ms',
  'grpc.min_reconnect_backoff_ms',
  'grpc.max_reconnect_backoff_ms',
  'grpc.use_local_subchannel_pool',
  'grpc.default_compression_algorithm',
  'grpc.enable_channelz',
  'grpc.dns_min_time_between_resolutions_ms',
  'grpc.enable_retries',
  'grpc.per_rpc_retry_buffer_size',
  'grpc.retry_buffer_size',
  'grpc.max_connection_age_ms',
  'grpc.max_connection_age_grace_ms',
  'grpc.max_connection_idle_ms',
  'grpc.service_config_disable_resolution',
  'grpc.client_idle_timeout_ms',
  'grpc.lb_policy_name',
  'grpc.lb.ring_hash.ring_size_cap',
  'grpc.server_call_metric_recording',
  'grpc.http2.max_ping_strikes',
  'grpc.http2.max_pings_without_data',
  'grpc.http2.min_time_between_pings_ms',
  'grpc.http2.min_ping_interval_without_data_ms',
  'grpc-node.max_session_memory',
  'grpc-node.tls_enable_trace',
  'grpc-node.retry_max_attempts_limit',
  'grpc-node.flow_control_window',
]);

/** Servers end a connection that is pinged more often. */
const LEAST_PING_MS = 5000;

const MEANING: Readonly<Record<string, (into: ChannelSettings, path: string, value: unknown) => void>> = {
  'grpc.keepalive_time_ms'(into, path, value) {
    const ms = number(path, value);
    into.keepAliveMs = ms < 0 ? MAX_MS : Math.max(ms, LEAST_PING_MS); // -1 and the largest: as good as never
  },
  'grpc.keepalive_timeout_ms'(into, path, value) {
    into.keepAliveTimeoutMs = Math.max(1, number(path, value));
  },
  'grpc.keepalive_permit_without_calls'(into, path, value) {
    into.keepAliveWhileIdle = number(path, value) !== 0;
  },
  'grpc.max_receive_message_length'(into, path, value) {
    const bytes = number(path, value);
    into.maxMessageBytes = bytes < 0 ? MAX_MS : bytes;
  },
  'grpc.max_send_message_length'(into, path, value) {
    const bytes = number(path, value);
    into.maxRequestBytes = bytes < 0 ? MAX_MS : bytes;
  },
  'grpc.ssl_target_name_override'(into, path, value) {
    into.serverName = text(path, value);
  },
  'grpc.default_authority'(into, path, value) {
    into.authority = text(path, value);
  },
  'grpc.primary_user_agent'(into, path, value) {
    into.userAgent = [text(path, value), into.userAgent].filter(Boolean).join(' ');
  },
  'grpc.secondary_user_agent'(into, path, value) {
    into.userAgent = [into.userAgent, text(path, value)].filter(Boolean).join(' ');
  },
  'grpc.enable_http_proxy'(_into, path, value) {
    if (number(path, value) !== 0) throw invalid(path, 'there is no support for a proxy; leave it out, or write 0');
  },
};

/**
 * Reads `options.grpcOptions`. Throws an `InvalidArgumentError` that names the key: one that does nothing helps nobody.
 */
export function settleGrpcOptions(value: unknown): ChannelSettings {
  const options = optional('options.grpcOptions', value ?? undefined);
  const settings: ChannelSettings = {};
  for (const [key, given] of Object.entries(options)) {
    if (given === undefined || given === null || WITHOUT_EFFECT.has(key)) continue;
    const path = `options.grpcOptions["${key}"]`;
    const apply = Object.hasOwn(MEANING, key) ? MEANING[key] : undefined;
    if (!apply) throw invalid(path, 'unknown here, and would have no effect; leave it out');
    apply(settings, path, given);
  }
  return settings;
}

/** A whole number; -1 and below stand for no limit. */
function number(path: string, value: unknown): number {
  if (typeof value === 'boolean') return Number(value);
  if (typeof value !== 'number' || !Number.isFinite(value)) {
    throw invalid(path, `expected a number, got ${kindOf(value)}`);
  }
  return Math.min(Math.trunc(value), MAX_MS);
}
