// Many records at once.

import { instanceOf, keyOf, recordOf } from './instances.mjs';

/** Writes `perName` (at most 128) instances of every name, a transaction each. */
export async function fill(client, prefix, names, perName, progress) {
  const left = [...names];
  let done = 0;
  const worker = async () => {
    for (let name = left.pop(); name !== undefined; name = left.pop()) {
      const instances = Array.from({ length: perName }, (_, n) => instanceOf(name, n));
      await client.kv.txn({
        success: instances.map((instance) => ({
          request_put: { key: Buffer.from(keyOf(prefix, instance)), value: Buffer.from(recordOf(instance)) },
        })),
      });
      if (++done % 100 === 0) progress(`${done}/${names.length} services written`);
    }
  };
  await Promise.all(Array.from({ length: 8 }, worker));
}
