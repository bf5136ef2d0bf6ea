// The keys that every contender reads and writes, the loop in Rust as well.

const lists = new Map();

/** So many keys under a prefix. */
export function keysOf(prefix, count) {
  const name = `${prefix} ${count}`;
  if (!lists.has(name)) {
    lists.set(
      name,
      Array.from({ length: count }, (_, place) => prefix + String(place).padStart(6, '0')),
    );
  }
  return lists.get(name);
}

export const textOf = (bytes) => 'v'.repeat(bytes);
