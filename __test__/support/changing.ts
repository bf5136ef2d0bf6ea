/** A value that changes, as a `ConfigRef` has it. */
export function changing<T>(first: T) {
  const listeners = new Set<() => void>();
  const ref = {
    value: first,
    subscribe(listener: () => void) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    set(next: unknown) {
      ref.value = next as T;
      for (const listener of listeners) listener();
    },
    listeners,
  };
  return ref;
}
