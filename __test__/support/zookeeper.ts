// Real ZooKeeper servers for tests: Debian's 3.8, on free ports of 127.0.0.1, with their data in a temporary folder.
import { accessSync, cpSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { freePorts } from './ports.js';
import { temporaryFolder, waitFor } from './process.js';
import { installedProgram } from './programs.js';
import { PortTaken, ServerProgram } from './server-program.js';
import { type Certificates, makeCertificates } from './tls.js';
import { ZkClient } from './zookeeper-client.js';

export interface ZookeeperOptions {
  members?: 1 | 3;
  /** Milliseconds; the unit of every timeout of the server. 500 by default, so that a session may be as short as 1 s. */
  tickTime?: number;
  /** The bounds of what is granted, in milliseconds. 1000 and 60000 by default. */
  sessionTimeouts?: { min: number; max: number };
  /** More lines of the configuration file. */
  config?: readonly string[];
  /** More arguments of Java. */
  java?: readonly string[];
  /** A member without a quorum serves reads to clients that ask for it. */
  readOnlyMode?: boolean;
  /** Certificates are shown by both sides, on ports beside the plain ones; `hosts` are these, then. */
  tls?: 'mutual';
}

export interface ZookeeperMember {
  readonly name: string;
  /** host:port */
  readonly host: string;
  readonly running: boolean;
  readonly frozen: boolean;
  readonly pid: number | undefined;
  readonly log: string;
  isLeader(): Promise<boolean>;
  /** SIGKILL, and waits. */
  kill(): Promise<void>;
  /** Same port, same data; waits until it serves. */
  start(): Promise<void>;
  /** Starts it without waiting for it to serve, which it can't without a quorum. */
  launch(): void;
  /** SIGSTOP: connections stand, nothing is answered. */
  freeze(): void;
  thaw(): void;
  /** A four-letter word. */
  ask(word: string): Promise<string>;
}

export interface ZookeeperEnsemble {
  readonly hosts: readonly string[];
  /** zookeeper://host:port,host:port */
  readonly url: string;
  readonly members: readonly ZookeeperMember[];
  readonly certificates: Certificates | undefined;
  leader(): Promise<ZookeeperMember>;
  /** Around the product; closed with the ensemble. */
  client(): Promise<ZkClient>;
  kill(): Promise<void>;
  start(): Promise<void>;
  freeze(): void;
  thaw(): void;
  /** Copies the data while the members run; what it gives kills them and starts them with that. */
  backup(): () => Promise<void>;
  /** Kills, deletes all data and starts. */
  wipe(): Promise<void>;
  close(): Promise<void>;
}

// A start is a Java start: seconds, on a busy machine.
const startTimeoutMs = 60_000;

/** The jars of Debian; those that this server needs are named in the manifest of none of them. */
const jars = [
  'zookeeper',
  'zookeeper-jute',
  'slf4j-api',
  'slf4j-simple',
  'netty-all',
  'netty-buffer',
  'netty-codec',
  'netty-common',
  'netty-handler',
  'netty-resolver',
  'netty-transport',
  'netty-transport-native-unix-common',
  'netty-transport-native-epoll',
  'snappy-java',
  'metrics-core',
  'commons-io',
  'commons-cli',
  'jackson-core',
  'jackson-databind',
  'jackson-annotations',
  'spifly',
];

function classPath(): string {
  const found = jars.map((jar) => `/usr/share/java/${jar}.jar`).filter((path) => exists(path));
  if (!found.includes('/usr/share/java/zookeeper.jar')) {
    throw new Error('/usr/share/java/zookeeper.jar (Debian package zookeeper) is missing: run `make servers`');
  }
  return found.join(':');
}

function exists(path: string): boolean {
  try {
    accessSync(path);
    return true;
  } catch {
    return false;
  }
}

class Member extends ServerProgram implements ZookeeperMember {
  readonly host: string;
  beforeLaunch = (): void => {};
  private readonly folder: string;

  constructor(
    name: string,
    folder: string,
    private readonly id: number,
    private readonly port: number,
    private readonly java: readonly string[],
    /** Where TLS is spoken. */
    readonly secureHost: string | undefined,
  ) {
    super('ZooKeeper', name);
    this.host = `127.0.0.1:${port}`;
    this.folder = join(folder, name);
  }

  configure(lines: readonly string[]): void {
    mkdirSync(join(this.folder, 'data'), { recursive: true });
    writeFileSync(join(this.folder, 'data', 'myid'), `${this.id}\n`);
    const own = [`clientPort=${this.port}`, 'clientPortAddress=127.0.0.1', `dataDir=${join(this.folder, 'data')}`];
    writeFileSync(join(this.folder, 'zoo.cfg'), [...own, ...lines, ''].join('\n'));
  }

  launch(): void {
    if (this.child) throw new Error(`${this.name} runs already`);
    this.beforeLaunch();
    this.run(installedProgram('/usr/bin/java', 'zookeeper'), [
      ...['-Xmx256m', '-XX:+UseSerialGC', '-XX:TieredStopAtLevel=1', '-Xshare:auto', '-cp', classPath()],
      ...['-Dorg.slf4j.simpleLogger.defaultLogLevel=warn', '-Djava.awt.headless=true'],
      ...this.java,
      'org.apache.zookeeper.server.quorum.QuorumPeerMain',
      join(this.folder, 'zoo.cfg'),
    ]);
  }

  serving(): Promise<void> {
    return this.until(
      // Says so only when it has a leader.
      async () => /^Mode: /m.test(await this.ask('srvr')),
      `at ${this.host} to serve`,
      { timeoutMs: startTimeoutMs, intervalMs: 50 },
    );
  }

  async start(): Promise<void> {
    this.launch();
    await this.serving();
  }

  wipe(): void {
    rmSync(join(this.folder, 'data', 'version-2'), { recursive: true, force: true, maxRetries: 5 });
  }

  /** Copies the data, and gives the way back to that, when it must not run. */
  backup(): () => void {
    const [data, copy] = ['data', 'backup'].map((name) => join(this.folder, name)) as [string, string];
    cpSync(data, copy, { recursive: true });
    return () => {
      this.wipe();
      cpSync(copy, data, { recursive: true });
    };
  }

  async isLeader(): Promise<boolean> {
    if (!this.child || this.frozen) return false;
    return /^Mode: (leader|standalone)$/m.test(await this.ask('srvr'));
  }

  ask(word: string): Promise<string> {
    return new Promise((resolve, reject) => {
      let answer = '';
      const socket = connect(this.port, '127.0.0.1', () => socket.write(word));
      socket.setTimeout(2000, () => socket.destroy(new Error(`${word}: no answer`)));
      socket.on('data', (chunk) => {
        answer += chunk.toString();
      });
      socket.on('error', reject);
      socket.on('close', () => resolve(answer));
    });
  }
}

class Ensemble implements ZookeeperEnsemble {
  readonly hosts: readonly string[];
  readonly url: string;
  private readonly clients: ZkClient[] = [];

  constructor(
    readonly members: readonly Member[],
    readonly certificates: Certificates | undefined,
    private readonly removeFolder: () => void,
  ) {
    this.hosts = members.map(({ host, secureHost }) => secureHost ?? host);
    this.url = `zookeeper${certificates ? 's' : ''}://${this.hosts.join(',')}`;
  }

  leader(): Promise<ZookeeperMember> {
    return waitFor(
      async () => {
        const answers = await Promise.all(this.members.map((member) => member.isLeader().catch(() => false)));
        return this.members[answers.indexOf(true)];
      },
      { what: 'a leader', timeoutMs: startTimeoutMs },
    );
  }

  async client(): Promise<ZkClient> {
    const member = this.members.find(({ running, frozen }) => running && !frozen);
    if (!member) throw new Error('no member runs');
    const client = await ZkClient.connect(member.host);
    this.clients.push(client);
    return client;
  }

  private async each(what: (member: Member) => Promise<void>): Promise<void> {
    await Promise.all(this.members.map(what));
  }

  kill(): Promise<void> {
    return this.each((member) => member.kill());
  }

  async start(): Promise<void> {
    for (const member of this.members) if (!member.running) member.launch();
    const results = await Promise.allSettled(this.members.map((member) => member.serving()));
    const failures = results.flatMap((result) => (result.status === 'rejected' ? [result.reason] : []));
    if (failures.length > 0) throw failures.find((failure) => failure instanceof PortTaken) ?? failures[0];
  }

  freeze(): void {
    for (const member of this.members) if (member.running) member.freeze();
  }

  thaw(): void {
    for (const member of this.members) if (member.frozen) member.thaw();
  }

  backup(): () => Promise<void> {
    const restores = this.members.map((member) => member.backup());
    return async () => {
      await this.kill();
      for (const restore of restores) restore();
      await this.start();
    };
  }

  async wipe(): Promise<void> {
    await this.kill();
    for (const member of this.members) member.wipe();
    await this.start();
  }

  async close(): Promise<void> {
    for (const client of this.clients) client.abandon();
    await this.kill();
    this.removeFolder();
    this.certificates?.remove();
  }
}

/** Makes a member speak TLS. It wants its certificate and its key in one file, and that of today when it starts. */
function secureLines({ ca, server }: Certificates, member: Member, folder: string): string[] {
  const store = join(folder, `${member.name}.pem`);
  member.beforeLaunch = () => {
    writeFileSync(store, readFileSync(server.keyFile, 'utf8') + readFileSync(server.certFile, 'utf8'));
  };
  return [
    ...[`secureClientPort=${member.secureHost?.split(':')[1]}`, 'secureClientPortAddress=127.0.0.1'],
    'serverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory',
    ...[`ssl.keyStore.location=${store}`, 'ssl.keyStore.type=PEM', 'ssl.keyStore.password='],
    ...[`ssl.trustStore.location=${ca.certFile}`, 'ssl.trustStore.type=PEM', 'ssl.trustStore.password='],
    ...['ssl.clientAuth=need', 'ssl.hostnameVerification=false'],
  ];
}

/** Starts a ZooKeeper and waits until it serves. */
export async function startZookeeper({
  members: count = 1,
  tickTime = 500,
  sessionTimeouts = { min: 1000, max: 60_000 },
  config = [],
  java = [],
  readOnlyMode = false,
  tls,
}: ZookeeperOptions = {}): Promise<ZookeeperEnsemble> {
  for (let attempt = 1; ; attempt++) {
    const folder = temporaryFolder('rollcall-zookeeper-');
    const ports = await freePorts(4 * count);
    const certificates = tls && (await makeCertificates());
    const args = [...(readOnlyMode ? ['-Dreadonlymode.enabled=true'] : []), ...java];
    const members = Array.from(
      { length: count },
      (_, index) =>
        new Member(
          `member${index + 1}`,
          folder.path,
          index + 1,
          ports[4 * index] as number,
          args,
          tls && `127.0.0.1:${ports[4 * index + 3]}`,
        ),
    );
    const lines = [
      ...[`tickTime=${tickTime}`, 'initLimit=20', 'syncLimit=6', 'admin.enableServer=false', 'maxClientCnxns=0'],
      ...[`minSessionTimeout=${sessionTimeouts.min}`, `maxSessionTimeout=${sessionTimeouts.max}`],
      // Data need not outlive the machine; it does outlive a SIGKILL.
      ...['4lw.commands.whitelist=*', 'forceSync=no'],
      ...(count === 1
        ? []
        : members.map((_, i) => `server.${i + 1}=127.0.0.1:${ports[4 * i + 1]}:${ports[4 * i + 2]}`)),
      ...config,
    ];
    for (const member of members) {
      const secure = certificates ? secureLines(certificates, member, folder.path) : [];
      member.configure([...lines, ...secure]);
    }
    const ensemble = new Ensemble(members, certificates, folder.remove);
    try {
      await ensemble.start();
      return ensemble;
    } catch (error) {
      await ensemble.close();
      if (error instanceof PortTaken && attempt < 5) continue;
      throw error;
    }
  }
}
