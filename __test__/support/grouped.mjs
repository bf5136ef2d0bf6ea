// `rollcall/etcd` with `groupGets` on: what the tests of the project `grouped gets` import under its name. Every single
// get has company, so that none goes alone, which it otherwise would where a test awaits one after the other.

import { createRequire } from 'node:module';
import { Etcd3 as Plain } from '../../dist/esm/etcd/index.js';

export * from '../../dist/esm/etcd/index.js';

const { Connection } = createRequire(import.meta.url)('../../dist/cjs/etcd/transport/connection.js');
const { quickGet } = Connection.prototype;

/** Another get of the same moment: of the same time, for only those go together. */
Connection.prototype.quickGet = function (request, wantsBytes) {
  const company = { prefix: Buffer.alloc(0), key: 'nobody asks for this key', options: request.options };
  quickGet.call(this, company, true)?.catch(() => {}); // it may not be readable: then each is asked for alone
  return quickGet.call(this, request, wantsBytes);
};

export class Etcd3 extends Plain {
  constructor(options) {
    super({ groupGets: true, ...options });
  }
}
