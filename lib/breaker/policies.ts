/** The policies of breakers by their names, wherever they come from. */

import { Named, type NamedHearer } from '../coord/named.js';
import { type Policy, type Rules, rulesOf } from './policy.js';

/** Something that has policies and changes, such as a `ConfigRef` of `rollcall/coord`. */
export interface PoliciesRef {
  readonly value: Readonly<Record<string, Policy>>;
  subscribe(listener: () => void): () => void;
}

/** The name that stands for all breakers that have no policy of their own. */
const DEFAULT = 'default';
const KIND = { option: 'options.policies', one: 'policy', many: 'policies', of: 'breakers', parse: rulesOf } as const;

/** What is known of the policies. */
export class Policies extends Named<Rules> {
  readonly #fallback: Rules;

  constructor(fallback: Rules, hearer: NamedHearer, source: unknown) {
    super(KIND, hearer, source);
    this.#fallback = fallback;
  }

  /** The policy of this name, else of what stands before its `/`, else of all. */
  of(name: string): Rules {
    const slash = name.indexOf('/');
    const own = this.get(name) ?? (slash > 0 ? this.get(name.slice(0, slash)) : undefined);
    return own ?? this.get(DEFAULT) ?? this.#fallback;
  }
}
