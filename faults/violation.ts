import type { Time } from './history.js';
import type { Story } from './story.js';

export type RuleName =
  | 'sound'
  | 'registered'
  | 'dead'
  | 'deregistered'
  | 'withdrawn'
  | 'watching'
  | 'named'
  | 'called'
  | 'one-holder'
  | 'permits'
  | 'fenced'
  | 'once'
  | 'config'
  | 'ids'
  | 'settled'
  | 'flat'
  | 'alive'
  | 'quiet';

/** Something that may not happen, and did. */
export interface Violation {
  readonly rule: RuleName;
  /** When it began. */
  readonly at: Time;
  /** The last time at which it was seen, if it lasted. */
  readonly until?: Time;
  /** The process; `the run` if it is nobody's alone. */
  readonly who: string;
  /** The instance, name, lock, election or configuration. */
  readonly of?: string;
  /** One sentence. */
  readonly says: string;
}

export type Rule = (story: Story) => Violation[];
