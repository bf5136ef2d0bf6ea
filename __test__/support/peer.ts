// The Go peer (servers/peer): Kratos v2 with its etcd, Consul or Nacos registry, as a process that obeys.

import { type Answer as Answered, asker } from './commands.js';
import type { Script } from './process.js';
import { runProgram } from './process.js';
import { builtProgram } from './programs.js';

/** An instance as Kratos has it: `null`, not `{}` or `[]`. */
export interface PeerInstance {
  id: string;
  name: string;
  version: string;
  metadata: Record<string, string> | null;
  endpoints: string[] | null;
}

interface Answer extends Answered {
  instances?: PeerInstance[];
  event?: 'list' | 'error';
  watch?: number;
}

export interface PeerWatch {
  readonly name: string;
  /** Every list that Kratos has delivered, and every error. */
  readonly events: readonly { readonly instances?: PeerInstance[]; readonly error?: string }[];
  /** Every list that Kratos has delivered. */
  readonly lists: readonly PeerInstance[][];
  /** The first list, past or future, that fits. */
  list(
    fits: (instances: PeerInstance[]) => boolean,
    options?: { timeoutMs?: number; what?: string },
  ): Promise<PeerInstance[]>;
  stop(): Promise<void>;
}

export interface Peer {
  readonly script: Script<Answer>;
  register(instance: Partial<PeerInstance> & { id: string; name: string }): Promise<void>;
  deregister(instance: { id: string; name: string }): Promise<void>;
  get(name: string): Promise<PeerInstance[]>;
  watch(name: string): Promise<PeerWatch>;
  /** Deregisters what is registered and ends. */
  stop(): Promise<void>;
  /** SIGKILL: registrations stay until their lease ends. */
  kill(): Promise<void>;
  freeze(): void;
  thaw(): void;
  /** Ends it, in whatever state it is. */
  close(): Promise<void>;
}

export interface PeerOptions {
  /** host:port of the members, or the hosts of a cluster. */
  endpoints?: string | readonly string[];
  /** host:port of an agent of Consul, instead of etcd. */
  consul?: string;
  /** Whether the agent of Consul checks the endpoints itself. Not by default: nobody listens there. */
  health?: boolean;
  /** host:port of a Nacos, instead of etcd; needs a namespace. */
  nacos?: string;
  /** `/microservices` by default; of Nacos its id. */
  namespace?: string;
  /** 3000 by default, whole seconds. */
  ttlMs?: number;
  username?: string;
  password?: string;
}

/** Starts the peer. */
export async function startPeer({
  endpoints = [],
  consul,
  health = false,
  nacos,
  namespace,
  ttlMs = 3000,
  username,
  password,
}: PeerOptions): Promise<Peer> {
  const script = runProgram<Answer>(builtProgram('peer'), [
    ...['--endpoints', typeof endpoints === 'string' ? endpoints : endpoints.join(','), '--ttl', `${ttlMs}ms`],
    ...(consul === undefined
      ? []
      : ['--consul', consul, '--interval', `${ttlMs / 2}ms`, ...(health ? [] : ['--health=false'])]),
    ...(nacos === undefined ? [] : ['--nacos', nacos]),
    ...(namespace === undefined ? [] : ['--namespace', namespace]),
    ...(username === undefined ? [] : ['--username', username, '--password', password ?? '']),
  ]);
  const ask = asker(script, 'the peer');
  const end = async (signal: NodeJS.Signals): Promise<void> => {
    script.kill(signal);
    await script.exit;
  };
  return {
    script,
    async register(instance) {
      await ask('register', { instance: { version: '', metadata: null, endpoints: null, ...instance } });
    },
    async deregister(instance) {
      await ask('deregister', { instance });
    },
    async get(name) {
      return (await ask('get', { name })).instances ?? [];
    },
    async watch(name) {
      const { id } = await ask('watch', { name });
      const mine = (): Answer[] => script.seen.filter((line) => line.watch === id && line.event !== undefined);
      const lists = (): PeerInstance[][] =>
        mine().flatMap(({ event, instances }) => (event === 'list' ? [instances ?? []] : []));
      return {
        name,
        get events() {
          return mine().map(({ event, instances, error }) =>
            event === 'list' ? { instances: instances ?? [] } : { error },
          );
        },
        get lists() {
          return lists();
        },
        async list(fits, { timeoutMs, what = 'a list of the watch' } = {}) {
          const line = await script.line(
            (one) => one.watch === id && one.event === 'list' && fits(one.instances ?? []),
            { timeoutMs, what },
          );
          return line.instances ?? [];
        },
        async stop() {
          await ask('unwatch', { watch: id });
        },
      };
    },
    async stop() {
      await ask('stop');
      await script.exit;
    },
    kill: () => end('SIGKILL'),
    freeze: () => script.kill('SIGSTOP'),
    thaw: () => script.kill('SIGCONT'),
    close: () => end('SIGKILL'),
  };
}
