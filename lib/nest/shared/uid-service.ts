/** The ids of an application. */

import type { Uid } from '../../uid/index.js';
import { madeByModule } from './by-module.js';

/** Makes ids that no two processes of the service make, as `UidModule` was told. */
export class UidService {
  /** The whole of it: its events, `ready()`, `parse()`. The module closes it, and gives the worker id back. */
  readonly uid: Uid;

  /** @internal */
  constructor(uid: Uid) {
    madeByModule(uid, 'UidService', 'UidModule');
    this.uid = uid;
  }

  /** As `uid.next()`: an id, greater than each before it. @throws as it. */
  next(): bigint {
    return this.uid.next();
  }

  /** The same in digits: a JavaScript number has too few bits for it. @throws as `uid.next()`. */
  nextString(): string {
    return this.uid.nextString();
  }
}
