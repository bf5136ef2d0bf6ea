/** The policies of breakers by their names, wherever they come from. */

import { isRecord, record } from '../common/shape.js';
import { type Policy, type Rules, rulesOf } from './policy.js';

/** Something that has policies and changes, such as a `ConfigRef` of `rollcall/coord`. */
export interface PoliciesRef {
  readonly value: Readonly<Record<string, Policy>>;
  subscribe(listener: () => void): () => void;
}

/** The name that stands for all breakers that have no policy of their own. */
const DEFAULT = 'default';
/** What names of files end with. */
const FILE = /\.json$/;

/** What is known of the policies. */
export class Policies {
  readonly #fallback: Rules;
  #byName = new Map<string, Rules>();
  /** Changes when any policy does. */
  version = 0;

  constructor(fallback: Rules) {
    this.#fallback = fallback;
  }

  /** The policy of this name, else of what stands before its `/`, else of all. */
  of(name: string): Rules {
    const own = this.#byName.get(name) ?? this.#byName.get(name.slice(0, Math.max(0, name.indexOf('/'))));
    return own ?? this.#byName.get(DEFAULT) ?? this.#fallback;
  }

  /**
   * Takes other policies in the place of all. One that is wrong is given to `refused`, and what it had before stays; without
   * `refused` it is thrown.
   */
  replace(path: string, value: unknown, refused?: (name: string, error: unknown) => void): void {
    const next = new Map<string, Rules>();
    for (const [key, policy] of Object.entries(record(path, value, 'policies by the names of breakers'))) {
      const name = key.replace(FILE, '');
      try {
        next.set(name, rulesOf(`${path}.${key}`, policy));
      } catch (error) {
        if (!refused) throw error;
        const before = this.#byName.get(name);
        if (before) next.set(name, before);
        refused(name, error);
      }
    }
    this.#byName = next;
    this.version++;
  }
}

/** Whether it is a source that changes. */
export function isPoliciesRef(value: unknown): value is PoliciesRef {
  return isRecord(value) && typeof value.subscribe === 'function' && 'value' in value;
}
