// A ZooKeeper of the benchmarks' own: Debian's, on a free port of 127.0.0.1, with its data in a temporary folder.

import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { freePort } from './free-port.mjs';
import { keyOf, recordOf } from './instances.mjs';

const JAVA = '/usr/bin/java';
const JARS = '/usr/share/java';
const PREFIX = '/microservices';

/** For example `3.8.0`; undefined when the Debian package is not installed. */
export function zookeeperVersion() {
  if (!existsSync(JAVA) || !existsSync(`${JARS}/zookeeper.jar`)) return undefined;
  const versioned = readdirSync(JARS).map((name) => /^zookeeper-(\d+\.\d+\.\d+).*\.jar$/.exec(name)?.[1]);
  return versioned.find((version) => version !== undefined) ?? 'unknown version';
}

/** Starts a single server and waits until it serves. It does not wait for the disk, as the etcd of the benchmarks does not. */
export async function startZookeeper() {
  const folder = mkdtempSync(join(tmpdir(), 'rollcall-bench-zookeeper-'));
  const port = await freePort();
  mkdirSync(join(folder, 'data'));
  const config = [
    ...[`clientPort=${port}`, 'clientPortAddress=127.0.0.1', `dataDir=${join(folder, 'data')}`, 'tickTime=2000'],
    ...['admin.enableServer=false', 'forceSync=no', '4lw.commands.whitelist=srvr', ''],
  ];
  writeFileSync(join(folder, 'zoo.cfg'), config.join('\n'));
  const needed =
    /^(zookeeper|zookeeper-jute|slf4j-(api|simple)|netty-.*|snappy-java|metrics-core|commons-(io|cli))\.jar$/;
  const alsoNeeded = /^(jackson-(core|databind|annotations)|spifly)\.jar$/;
  const jars = readdirSync(JARS).filter((name) => needed.test(name) || alsoNeeded.test(name));
  const child = spawn(
    JAVA,
    [
      ...['-Xmx1g', '-cp', jars.map((name) => join(JARS, name)).join(':')],
      ...['-Dorg.slf4j.simpleLogger.defaultLogLevel=error', '-Djava.awt.headless=true'],
      ...['org.apache.zookeeper.server.quorum.QuorumPeerMain', join(folder, 'zoo.cfg')],
    ],
    { stdio: ['ignore', 'ignore', 'ignore'] },
  );
  let session;
  const stop = () => {
    session?.end();
    child.kill('SIGKILL');
    rmSync(folder, { recursive: true, force: true, maxRetries: 5 });
  };
  process.on('exit', stop);
  for (const deadline = Date.now() + 60_000; ; await delay(50)) {
    if (child.exitCode !== null) throw new Error(`ZooKeeper ended with code ${child.exitCode}`);
    if (/^Mode: /m.test(await word(port, 'srvr').catch(() => ''))) break;
    if (Date.now() > deadline) throw new Error('ZooKeeper did not serve within 60 s');
  }
  session = await Session.open(port);

  return {
    host: `127.0.0.1:${port}`,
    options: { backend: 'zookeeper', hosts: `127.0.0.1:${port}` },
    pid: child.pid,
    stop,
    /** Makes what is above the instances of the names. */
    async prepare(_, names) {
      const parents = [
        ...((await session.exists(PREFIX)) ? [] : [PREFIX]),
        ...names.map((name) => `${PREFIX}/${name}`),
      ];
      for (let at = 0; at < parents.length; at += 100)
        await session.multi(parents.slice(at, at + 100).map((path) => ({ path, value: '', make: true })));
    },
    /** Nodes that belong to no session; `changed`: they are there already. */
    write: (instances, changed = false) =>
      session.multi(
        instances.map((instance) => ({ path: keyOf(PREFIX, instance), value: recordOf(instance), make: !changed })),
      ),
    paceMs: 5,
  };
}

/** A four-letter word. */
function word(port, text) {
  return new Promise((resolve, reject) => {
    let answer = '';
    const socket = connect(port, '127.0.0.1', () => socket.write(text));
    socket.setTimeout(2000, () => socket.destroy(new Error('no answer')));
    socket.on('data', (chunk) => {
      answer += chunk;
    });
    socket.on('error', reject);
    socket.on('close', () => resolve(answer));
  });
}

const CREATE = 1;
const EXISTS = 3;
const SET = 5;
const PING = 11;
const MULTI = 14;

const int = (value) => {
  const bytes = Buffer.alloc(4);
  bytes.writeInt32BE(value);
  return bytes;
};
const text = (value) => {
  const bytes = Buffer.from(value);
  return Buffer.concat([int(bytes.length), bytes]);
};
/** Everybody may do everything. */
const ANYONE = Buffer.concat([int(1), int(31), text('world'), text('anyone')]);
const NO = Buffer.from([0]);
const YES = Buffer.from([1]);

/** A writer's session, in ZooKeeper's own protocol: answers come in the order of the requests. */
class Session {
  #socket;
  #waiting = [];
  #rest = Buffer.alloc(0);
  #xid = 0;

  static async open(port) {
    const session = new Session();
    const socket = connect(port, '127.0.0.1').setNoDelay();
    session.#socket = socket;
    socket.on('data', (chunk) => session.#take(chunk));
    socket.on('error', () => {}); // 'close' follows
    socket.on('close', () => {
      for (const { reject } of session.#waiting.splice(0)) reject(new Error('ZooKeeper closed the connection'));
    });
    const hello = [int(0), Buffer.alloc(8), int(30_000), Buffer.alloc(8), int(16), Buffer.alloc(16), NO];
    await session.#send(hello);
    setInterval(() => socket.write(framed([int(-2), int(PING)])), 5000).unref();
    return session;
  }

  #send(parts) {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ resolve, reject });
      this.#socket.write(framed(parts));
    });
  }

  #take(chunk) {
    this.#rest = Buffer.concat([this.#rest, chunk]);
    while (this.#rest.length >= 4 && this.#rest.length >= 4 + this.#rest.readInt32BE(0)) {
      const end = 4 + this.#rest.readInt32BE(0);
      const body = this.#rest.subarray(4, end);
      this.#rest = this.#rest.subarray(end);
      if (body.readInt32BE(0) !== -2) this.#waiting.shift()?.resolve(body);
    }
  }

  /** The error code of an answer, 0 for none. */
  async #ask(opcode, parts) {
    const answer = await this.#send([int(++this.#xid), int(opcode), ...parts]);
    return answer.readInt32BE(12);
  }

  async exists(path) {
    return (await this.#ask(EXISTS, [text(path), NO])) === 0;
  }

  /** All or nothing. */
  async multi(writes) {
    const parts = writes.flatMap(({ path, value, make }) => [
      ...[int(make ? CREATE : SET), NO, int(-1), text(path), text(value)],
      ...(make ? [ANYONE, int(0)] : [int(-1)]),
    ]);
    const answer = await this.#send([int(++this.#xid), int(MULTI), ...parts, int(-1), YES, int(-1)]);
    // The kind of the first result says whether it is one of errors.
    const [code, kind] = [answer.readInt32BE(12), answer.readInt32BE(16)];
    if (code !== 0 || kind === -1) throw new Error(`ZooKeeper refused a transaction: ${code}, ${writes[0].path}`);
  }

  end() {
    this.#socket.destroy();
  }
}

function framed(parts) {
  const body = Buffer.concat(parts);
  return Buffer.concat([int(body.length), body]);
}
