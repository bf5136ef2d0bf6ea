/** Whether a registry is reached. */

/**
 * Whether a registry is reached, as far as what this client does anyway has shown: attempts to publish, reads, watches,
 * `ping()`. There is no traffic for it, so a client with nothing to do does not notice an outage.
 *
 * - `connecting`: nothing has answered yet.
 * - `connected`: what was done last was answered.
 * - `disconnected`: what was done last got no answer, or a watch broke. A refusal changes nothing, and neither does a read
 *   that was given less time than `timeoutMs` of the registry.
 * - `closed`: `close()` was called.
 */
export type RegistryStatus = 'connecting' | 'connected' | 'disconnected' | 'closed';
