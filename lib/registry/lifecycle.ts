/** The end of the process, or of the thread: what is registered is taken back. */

import { isMainThread } from 'node:worker_threads';
import { native } from '../native.js';
import type { Log } from './logger.js';

/** What is closed when a signal comes. */
interface Closable {
  close(): Promise<void>;
}

interface SignalWatch {
  readonly clients: Map<Closable, Log>;
  readonly listener: () => void;
  /** The signal has come. */
  called: boolean;
}

/** The most that the end of a process waits for, in milliseconds. */
const EXIT_MS = 500;

const open = new Set<Closable>();
const signalWatches = new Map<NodeJS.Signals, SignalWatch>();

// `process.exit()` and an uncaught exception come here as well; native clean-up hooks don't run for them.
const onExit = () => {
  native().shutdown(EXIT_MS);
};

/** From now on the end of the process closes `client`, and so does each of `signals`. */
export function track(client: Closable, signals: readonly NodeJS.Signals[], log: Log): void {
  if (open.size === 0) process.on('exit', onExit);
  open.add(client);
  if (signals.length > 0 && !isMainThread) {
    log.write('warn', 'options.signals: a worker thread gets no signals; close the registry from the main thread');
    return;
  }
  for (const signal of signals) {
    let watch = signalWatches.get(signal);
    if (!watch) {
      watch = { clients: new Map(), listener: () => onSignal(signal), called: false };
      signalWatches.set(signal, watch);
      process.on(signal, watch.listener);
    }
    watch.clients.set(client, log);
  }
}

/** `client` is closed. */
export function untrack(client: Closable): void {
  if (!open.delete(client)) return;
  if (open.size === 0) process.off('exit', onExit);
  for (const [signal, watch] of signalWatches) {
    watch.clients.delete(client);
    // While the signal is being answered the listener stays: it lets the signal through at the end.
    if (watch.clients.size === 0 && !watch.called) forget(signal, watch);
  }
}

/** Closes all who asked for it; then, or at the second signal, the signal goes through. */
async function onSignal(signal: NodeJS.Signals): Promise<void> {
  const watch = signalWatches.get(signal);
  if (!watch) return;
  if (!watch.called) {
    watch.called = true;
    await Promise.all(
      [...watch.clients].map(([client, log]) =>
        client.close().catch((error: unknown) => {
          log.write('warn', `${signal}: ${error instanceof Error ? error.message : String(error)}`);
        }),
      ),
    );
  }
  if (signalWatches.get(signal) !== watch) return; // let through meanwhile
  forget(signal, watch);
  // Another listener of the program decides for itself when to end.
  if (process.listenerCount(signal) === 0) process.kill(process.pid, signal);
}

function forget(signal: NodeJS.Signals, watch: SignalWatch): void {
  signalWatches.delete(signal);
  process.off(signal, watch.listener);
}
