/** The end of the process, or of the thread: what is registered is taken back. */

import type { Log } from '../common/logger.js';
import { native } from '../native.js';
import type { BackendName } from './backends/index.js';
import { defaultDrain } from './options.js';

/** What is closed when a signal comes. */
interface Closable {
  readonly backend: BackendName;
  close(options: { drainMs: number }): Promise<void>;
}

/** What an application does at the end, its registry among it. */
type Leave = () => Promise<void>;

/** What a signal does with a client. */
interface Answer {
  readonly leave: Leave;
  readonly log: Log;
}

interface SignalWatch {
  readonly clients: Map<Closable, Answer>;
  readonly listener: () => void;
  /** The signal has come. */
  called: boolean;
}

/** The most that the end of a process waits for, in milliseconds. */
const EXIT_MS = 500;

/** Marks our listeners of signals. `Symbol.for`: of two copies of the package the last to be done lets the signal through. */
const OURS = Symbol.for('rollcall.signal');

const open = new Set<Closable>();
const signalWatches = new Map<NodeJS.Signals, SignalWatch>();

// `process.exit()` and an uncaught exception come here as well; native clean-up hooks don't run for them.
const onExit = () => {
  native().shutdown(EXIT_MS);
};

/** Loaded at use: importing the package should cost next to nothing. */
function isMainThread(): boolean {
  return (require('node:worker_threads') as typeof import('node:worker_threads')).isMainThread;
}

/** From now on the end of the process closes `client`, and so does each of `signals`. */
export function track(client: Closable, signals: readonly NodeJS.Signals[], log: Log): void {
  if (open.size === 0) process.on('exit', onExit);
  open.add(client);
  const leave = () => client.close({ drainMs: defaultDrain(client.backend) });
  leaveBy(signals, client, { leave, log }, 'close the registry');
}

/** On each of `signals` the whole application leaves, in the place of its registry alone. */
export function trackLeave(leave: Leave, signals: readonly NodeJS.Signals[], client: Closable, log: Log): void {
  leaveBy(signals, client, { leave, log }, 'call leave()');
}

/** `instead`: what a worker thread asks of the main thread. */
function leaveBy(signals: readonly NodeJS.Signals[], client: Closable, answer: Answer, instead: string): void {
  if (signals.length > 0 && !isMainThread()) {
    answer.log.write('warn', `options.signals: a worker thread gets no signals; ${instead} from the main thread`);
    return;
  }
  for (const signal of signals) watchOf(signal).clients.set(client, answer);
}

function watchOf(signal: NodeJS.Signals): SignalWatch {
  const known = signalWatches.get(signal);
  if (known) return known;
  const listener = Object.assign(() => onSignal(signal), { [OURS]: true });
  const watch = { clients: new Map(), listener, called: false };
  signalWatches.set(signal, watch);
  process.prependListener(signal, listener); // first: it counts the others
  return watch;
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
  // Now, before the others are called: a listener added by `once()` is not among them later.
  const othersDecide = decides(signal, process.listeners(signal).filter((listener) => !(OURS in listener)).length);
  if (!watch.called) {
    watch.called = true;
    const [first] = watch.clients.values();
    await Promise.all(
      [...watch.clients.values()].map(({ leave, log }) =>
        leave().catch((error: unknown) => {
          log.write('warn', `${signal}: ${error instanceof Error ? error.message : String(error)}`);
        }),
      ),
    );
    if (othersDecide && signalWatches.get(signal) === watch) {
      first?.log.write('warn', `${signal}: closed; another listener of this signal decides when the process ends`);
    }
  }
  if (signalWatches.get(signal) !== watch) return; // let through meanwhile
  forget(signal, watch);
  if (othersDecide || process.listeners(signal).some((listener) => OURS in listener)) return;
  // At the second signal `close()` may still be under way, and an end by a signal emits no `exit`.
  native().shutdown(EXIT_MS);
  process.kill(process.pid, signal);
}

/** What `signal-exit` 4 and 3 leave of themselves: the number of its listeners of each signal. */
interface SignalExit {
  readonly count?: unknown;
}

/** The signals that `signal-exit` listens to; it lets them through when all listeners are its own. */
const SIGNAL_EXIT =
  /^SIG(HUP|INT|TERM|ALRM|ABRT|VTALRM|XCPU|XFSZ|USR2|TRAP|SYS|QUIT|IOT|IO|POLL|PWR|STKFLT|PROF|UNUSED)$/;

/** Whether one of `count` listeners decides when the process ends, as those of a program do. */
function decides(signal: NodeJS.Signals, count: number): boolean {
  if (count <= 0 || !SIGNAL_EXIT.test(signal)) return count > 0;
  const four = (globalThis as { [key: symbol]: SignalExit | undefined })[Symbol.for('signal-exit emitter')];
  const three = (process as { __signal_exit_emitter__?: SignalExit }).__signal_exit_emitter__;
  const passive = [four, three].map((emitter) => (typeof emitter?.count === 'number' ? emitter.count : 0));
  return count > passive.reduce((sum, each) => sum + each, 0);
}

function forget(signal: NodeJS.Signals, watch: SignalWatch): void {
  signalWatches.delete(signal);
  process.off(signal, watch.listener);
}
