// Runs the same program on rollcall/etcd and on etcd3, for tests that say: like etcd3.

import { Etcd3 as Theirs } from 'etcd3';
import { Etcd3 } from 'rollcall/etcd';

export interface Both {
  readonly ours: Etcd3;
  readonly theirs: Etcd3;
  close(): Promise<void>;
}

export function connectBoth(hosts: readonly string[], options: object = {}): Both {
  const ours = new Etcd3({ hosts: [...hosts], ...options });
  const theirs = new Theirs({ hosts: [...hosts], ...options });
  return {
    ours,
    theirs: theirs as unknown as Etcd3,
    close: async () => {
      theirs.close();
      await ours.close();
    },
  };
}

/** A result with what differs between two runs on one store taken out: headers, revisions and ids of leases. */
export function comparable(value: unknown): unknown {
  if (Buffer.isBuffer(value)) return `Buffer ${value.toString('latin1')}`;
  if (value instanceof Error) {
    // Of the text what etcd says; the class by its name, for the two packages have each their own.
    return `${value.constructor.name}: ${/etcdserver: [^:]*/.exec(value.message)?.[0] ?? value.message}`;
  }
  if (Array.isArray(value)) return value.map(comparable);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(
    Object.entries(value)
      // etcd3 has it as undefined where it is nothing.
      .filter(([, member]) => member !== undefined)
      .map(([name, member]) => {
        if (name === 'header') return [name, member === null ? null : '<header>'];
        if (/_revision$/.test(name) && member !== '0') return [name, '<revision>'];
        if (name === 'lease' && member !== '0') return [name, '<lease>'];
        return [name, comparable(member)];
      }),
  );
}

/** What a program gives or throws. */
export async function outcome(program: () => unknown): Promise<unknown> {
  try {
    return comparable(await program());
  } catch (error) {
    return { threw: comparable(error) };
  }
}
