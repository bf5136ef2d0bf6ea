/** The memory backend: its options and its URL. */

import { invalid, text } from '../../common/shape.js';
import { type Backend, decoded, noPath } from '../backend.js';
import type { CommonOptions } from '../common-options.js';

/** The embedded registry of this process, shared by its worker threads: for development and tests. */
export interface MemoryOptions extends CommonOptions {
  backend: 'memory';
  /** Registries of different namespaces don't see each other. Default `default`. */
  namespace?: string | undefined;
}

/** @internal */
export const memory: Backend<MemoryOptions> = {
  options: {
    namespace: 'text',
  },

  drainMs: 0, // within one process callers hear at once
  allowLocal: true,

  urls: ['memory://namespace'],

  fromUrl({ authority, path }) {
    noPath(path, 'a namespace has no "/"');
    if (authority.includes('@')) throw invalid('options', 'expected no user name in a URL of the memory backend');
    return authority === '' ? {} : { namespace: decoded('options.namespace', authority) };
  },

  settle(options) {
    return { namespace: text('options.namespace', options.namespace) ?? 'default' };
  },
};
