/** The ids of an application, of the key `uid`. */

import { ApplicationContext, type IMidwayContainer, Init, Provide, Scope, ScopeEnum } from '@midwayjs/core';
import { openUid } from '../frameworks/uids.js';
import type { Uid } from '../uid/index.js';
import type { UidConfig } from './config.js';
import { configOf, loggerOf } from './container.js';
import { coordOf, isGiven, notGiven } from './recipes.js';

/** Makes ids that no two processes of the service make, as the key `uid` says. */
@Provide()
@Scope(ScopeEnum.Singleton)
export class UidService {
  /** @internal */
  @ApplicationContext()
  container!: IMidwayContainer;

  /** The whole of it: its events, `ready()`, `parse()`. The component closes it, and gives the worker id back. */
  uid!: Uid;

  /** @internal */
  @Init()
  async init(): Promise<void> {
    if (!isGiven(this.container, 'uid')) throw notGiven('uid');
    const config = configOf<UidConfig>(this.container, 'uid');
    this.uid = await openUid('uid', config, loggerOf(this.container), coordOf(this.container));
  }

  /** As `uid.next()`: an id, greater than each before it. @throws as it. */
  next(): bigint {
    return this.uid.next();
  }

  /** The same in digits: a JavaScript number has too few bits for it. @throws as `uid.next()`. */
  nextString(): string {
    return this.uid.nextString();
  }

  /** @internal */
  async close(): Promise<void> {
    await this.uid.close();
  }
}
