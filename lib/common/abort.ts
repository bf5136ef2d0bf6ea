/** Listening to the signals of programs. */

interface Listening {
  readonly heirs: Set<() => void>;
  readonly listener: () => void;
}

const listening = new WeakMap<AbortSignal, Listening>();

/**
 * Runs `heir` when `signal` fires; gives what takes it back. However many there are, the signal has one listener: Node.js
 * warns of a leak from the eleventh on.
 */
export function onAbort(signal: AbortSignal, heir: () => void): () => void {
  let entry = listening.get(signal);
  if (!entry) {
    const heirs = new Set<() => void>();
    const listener = () => {
      listening.delete(signal);
      for (const one of [...heirs]) one();
    };
    entry = { heirs, listener };
    listening.set(signal, entry);
    signal.addEventListener('abort', listener, { once: true });
  }
  const { heirs, listener } = entry;
  heirs.add(heir);
  return () => {
    if (!heirs.delete(heir) || heirs.size > 0 || listening.get(signal)?.heirs !== heirs) return;
    listening.delete(signal);
    signal.removeEventListener('abort', listener);
  };
}
