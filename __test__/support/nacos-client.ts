// The clients of Nacos that others have, as processes that obey: the Java client (servers/nacos-java) and npm `nacos`
// (fixtures/nacos-client.mjs), which understand the same commands.
import { fileURLToPath } from 'node:url';
import { installed } from '../packaging/tools.js';
import { type Answer, asker } from './commands.js';
import type { NacosServer } from './nacos.js';
import { runProgram, runScript, type Script, temporaryFolder } from './process.js';
import { builtProgram } from './programs.js';

/** A host as these clients have it. */
export interface ClientHost {
  ip: string;
  port: number;
  weight: number;
  healthy: boolean;
  enabled: boolean;
  ephemeral: boolean;
  cluster: string;
  metadata: Record<string, string>;
}

/** What such a client is given to register; what is left out is as it has it. */
export type GivenHost = Pick<ClientHost, 'ip' | 'port'> & Partial<ClientHost>;

interface Line extends Answer {
  hosts?: ClientHost[];
  services?: string[];
  event?: 'list';
  subscription?: number;
}

/** A service; the group is `DEFAULT_GROUP` unless it is given. */
export type Service = string | { service: string; group: string };

export interface Subscription {
  /** All lists so far. */
  readonly lists: readonly ClientHost[][];
  /** Waits until the newest list fits, and gives it. */
  newest(fits: (hosts: ClientHost[]) => boolean, what: string): Promise<ClientHost[]>;
}

export interface NacosClient {
  register(service: Service, host: GivenHost): Promise<void>;
  /** All at once, which only the Java client can. */
  batch(service: Service, hosts: GivenHost[]): Promise<void>;
  deregister(service: Service, host: GivenHost): Promise<void>;
  /** All hosts, asked of the server. */
  get(service: Service): Promise<ClientHost[]>;
  /** Those that may be called. */
  select(service: Service): Promise<ClientHost[]>;
  services(group?: string): Promise<string[]>;
  subscribe(service: Service): Promise<Subscription>;
  /** Closes the client, and ends it. */
  stop(): Promise<void>;
  /** SIGKILL. */
  kill(): Promise<void>;
}

const of = (service: Service): { service: string; group: string } =>
  typeof service === 'string' ? { service, group: 'DEFAULT_GROUP' } : service;

const grpcPort = (nacos: NacosServer): string => String(nacos.ports.grpc);

/** Starts the Java client; it speaks gRPC. */
export async function startJavaClient(nacos: NacosServer, namespace: string): Promise<NacosClient> {
  const folder = temporaryFolder('rollcall-nacos-java-');
  const script = runProgram<Line>(builtProgram('nacos-java'), [nacos.host, grpcPort(nacos), namespace, folder.path]);
  void script.exit.then(() => folder.remove());
  return client(script, 'the Java client');
}

/** Starts npm `nacos`; it speaks HTTP. */
export async function startNodeClient(nacos: NacosServer, namespace: string): Promise<NacosClient> {
  const project = await installed('nacos', ['nacos@2.6.3']);
  const file = fileURLToPath(new URL('fixtures/nacos-client.mjs', import.meta.url));
  return client(runScript<Line>(file, [project, nacos.host, namespace]), 'npm nacos');
}

function client(script: Script<Line>, who: string): NacosClient {
  const ask = asker(script, who);
  const end = async (): Promise<void> => {
    script.kill('SIGKILL');
    await script.exit;
  };
  return {
    async register(service, host) {
      await ask('register', { ...of(service), host });
    },
    async batch(service, hosts) {
      await ask('batch', { ...of(service), hosts });
    },
    async deregister(service, host) {
      await ask('deregister', { ...of(service), host });
    },
    get: async (service) => (await ask('get', of(service))).hosts ?? [],
    select: async (service) => (await ask('select', of(service))).hosts ?? [],
    services: async (group = 'DEFAULT_GROUP') => (await ask('services', { group })).services ?? [],
    async subscribe(service) {
      const { id } = await ask('subscribe', of(service));
      const lists = (): ClientHost[][] =>
        script.seen.flatMap((line) => (line.subscription === id ? [line.hosts ?? []] : []));
      return {
        get lists() {
          return lists();
        },
        async newest(fits, what) {
          const isNewest = (line: Line): boolean => line.subscription === id && line.hosts === lists().at(-1);
          const line = await script.line((one) => isNewest(one) && fits(one.hosts ?? []), { timeoutMs: 40_000, what });
          return line.hosts ?? [];
        },
      };
    },
    async stop() {
      await ask('stop');
      await script.exit;
    },
    kill: end,
  };
}
