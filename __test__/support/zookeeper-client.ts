// A small client of ZooKeeper's own protocol: what the tests assert on and break, the product has no part in.
// See zookeeper.jute of the server for the records, and its programmer's guide for what they mean.
import type { Socket } from 'node:net';
import { connect } from 'node:net';

const OPCODES = {
  create: 1,
  delete: 2,
  exists: 3,
  getData: 4,
  setData: 5,
  getAcl: 6,
  ping: 11,
  getChildren: 8,
  sync: 9,
  multi: 14,
  auth: 100,
  close: -11,
} as const;

/** Error codes that a test may want to tell apart. */
export const NO_NODE = -101;
export const NO_AUTH = -102;
export const NODE_EXISTS = -110;
export const NOT_EMPTY = -111;

export class ZkError extends Error {
  constructor(
    readonly code: number,
    what: string,
  ) {
    super(`${what}: ZooKeeper error ${code}`);
  }
}

export interface ZkStat {
  readonly czxid: bigint;
  readonly mzxid: bigint;
  readonly version: number;
  /** The session of an ephemeral node, else 0. */
  readonly ephemeralOwner: bigint;
  readonly children: number;
}

export interface ZkAcl {
  readonly perms: number;
  readonly scheme: string;
  readonly id: string;
}

export const WORLD: readonly ZkAcl[] = [{ perms: 31, scheme: 'world', id: 'anyone' }];
export const CREATOR: readonly ZkAcl[] = [{ perms: 31, scheme: 'auth', id: '' }];

/** Writes records. */
class Writer {
  private readonly parts: Buffer[] = [];

  int(value: number): this {
    const part = Buffer.alloc(4);
    part.writeInt32BE(value);
    this.parts.push(part);
    return this;
  }

  long(value: bigint): this {
    const part = Buffer.alloc(8);
    part.writeBigInt64BE(value);
    this.parts.push(part);
    return this;
  }

  flag(value: boolean): this {
    this.parts.push(Buffer.from([value ? 1 : 0]));
    return this;
  }

  bytes(value: Buffer | string): this {
    const part = Buffer.from(value as string);
    this.int(part.length).parts.push(part);
    return this;
  }

  acls(acls: readonly ZkAcl[]): this {
    this.int(acls.length);
    for (const { perms, scheme, id } of acls) this.int(perms).bytes(scheme).bytes(id);
    return this;
  }

  packet(): Buffer {
    const body = Buffer.concat(this.parts);
    const length = Buffer.alloc(4);
    length.writeInt32BE(body.length);
    return Buffer.concat([length, body]);
  }

  append(other: Writer): this {
    this.parts.push(...other.parts);
    return this;
  }
}

/** Reads records. */
class Reader {
  private at = 0;
  constructor(private readonly buffer: Buffer) {}

  int(): number {
    this.at += 4;
    return this.buffer.readInt32BE(this.at - 4);
  }

  long(): bigint {
    this.at += 8;
    return this.buffer.readBigInt64BE(this.at - 8);
  }

  bytes(): Buffer {
    const length = Math.max(0, this.int());
    this.at += length;
    return this.buffer.subarray(this.at - length, this.at);
  }

  text(): string {
    return this.bytes().toString('utf8');
  }

  stat(): ZkStat {
    const [czxid, mzxid] = [this.long(), this.long()];
    this.long(); // ctime
    this.long(); // mtime
    const version = this.int();
    this.int(); // cversion
    this.int(); // aversion
    const ephemeralOwner = this.long();
    this.int(); // length of the data
    const children = this.int();
    this.long(); // pzxid
    return { czxid, mzxid, version, ephemeralOwner, children };
  }
}

/** The password of a session: the server derives it from the id, as `java.util.Random` does from a seed. */
function passwordOf(session: bigint): Buffer {
  const mask = (1n << 48n) - 1n;
  let seed = (BigInt.asUintN(64, session ^ 0xb3415c00n) ^ 0x5deece66dn) & mask;
  const password = Buffer.alloc(16);
  for (let at = 0; at < 16; at += 4) {
    seed = (seed * 0x5deece66dn + 0xbn) & mask;
    password.writeInt32LE(Number(BigInt.asIntN(32, seed >> 16n)), at);
  }
  return password;
}

export type ZkWrite =
  | { create: string; value: string; ephemeral?: boolean; acls?: readonly ZkAcl[] }
  | { set: string; value: string }
  | { delete: string; version?: number };

/** One session, on one connection; a lost connection is its end. */
export class ZkClient {
  private waiting = new Map<number, { resolve(body: Reader): void; reject(error: Error): void; what: string }>();
  private rest = Buffer.alloc(0);
  private xid = 0;
  private greeted: ((answer: Reader) => void) | undefined;
  /** Why nothing works any more. */
  private ended: Error | undefined;
  private beat: NodeJS.Timeout | undefined;
  session = 0n;
  /** What the server granted, in milliseconds; 0 for a session that it does not know. */
  granted = 0;

  private constructor(private readonly socket: Socket) {
    socket.on('data', (chunk) => this.take(chunk));
    socket.on('error', () => {});
    socket.on('close', () => this.end(new Error('the connection to ZooKeeper was closed')));
  }

  /** A new session, or the one with this id: any id will do, that is what makes a session expire on request. */
  static async connect(
    host: string,
    { session = 0n, timeoutMs = 20_000, closeAtOnce = false } = {},
  ): Promise<ZkClient> {
    const [address, port] = host.split(':');
    const socket = connect(Number(port), address);
    const client = new ZkClient(socket);
    const hello = new Writer().int(0).long(0n).int(timeoutMs).long(session);
    hello.bytes(session === 0n ? Buffer.alloc(16) : passwordOf(session)).flag(false);
    const answer = await new Promise<Reader>((resolve, reject) => {
      const late = setTimeout(() => client.end(new Error(`no session from ${host} within 5 s`)), 5000);
      client.waiting.set(Number.NaN, { resolve: () => {}, reject, what: 'connect' });
      client.greeted = (reader) => {
        clearTimeout(late);
        client.waiting.clear();
        resolve(reader);
      };
      // In one go: its owner, who is cut off by this, must not come back in between.
      const goodbye = closeAtOnce ? new Writer().int(1).int(OPCODES.close).packet() : Buffer.alloc(0);
      socket.write(Buffer.concat([hello.packet(), goodbye]));
    });
    answer.int(); // version of the protocol
    client.granted = answer.int();
    client.session = answer.long();
    client.beat = setInterval(() => socket.write(new Writer().int(-2).int(OPCODES.ping).packet()), 1000);
    client.beat.unref();
    return client;
  }

  private take(chunk: Buffer): void {
    this.rest = Buffer.concat([this.rest, chunk]);
    while (this.rest.length >= 4 && this.rest.length >= 4 + this.rest.readInt32BE(0)) {
      const length = this.rest.readInt32BE(0);
      const body = new Reader(this.rest.subarray(4, 4 + length));
      this.rest = this.rest.subarray(4 + length);
      if (this.greeted) {
        this.greeted(body);
        this.greeted = undefined;
        continue;
      }
      const xid = body.int();
      body.long();
      const code = body.int();
      const waiter = this.waiting.get(xid);
      this.waiting.delete(xid);
      if (code === 0) waiter?.resolve(body);
      else waiter?.reject(new ZkError(code, waiter.what));
    }
  }

  private end(error: Error): void {
    this.ended ??= error;
    clearInterval(this.beat);
    this.socket.destroy();
    for (const { reject } of this.waiting.values()) reject(this.ended);
    this.waiting.clear();
  }

  private ask(opcode: keyof typeof OPCODES, body: Writer, what: string, xid = ++this.xid): Promise<Reader> {
    if (this.ended) return Promise.reject(this.ended);
    return new Promise((resolve, reject) => {
      this.waiting.set(xid, { resolve, reject, what });
      this.socket.write(new Writer().int(xid).int(OPCODES[opcode]).append(body).packet());
    });
  }

  async create(path: string, value = '', { ephemeral = false, acls = WORLD } = {}): Promise<void> {
    const body = new Writer().bytes(path).bytes(value).acls(acls);
    await this.ask('create', body.int(ephemeral ? 1 : 0), `create ${path}`);
  }

  /** Waits until this member has all that the leader had; what is read next is as new as that. */
  async sync(path: string): Promise<void> {
    await this.ask('sync', new Writer().bytes(path), `sync ${path}`);
  }

  /** A node and the parents that it lacks. */
  async createAll(path: string, value = ''): Promise<void> {
    for (;;) {
      try {
        return await this.create(path, value);
      } catch (error) {
        if (!(error instanceof ZkError) || error.code !== NO_NODE) throw error;
        await this.createAll(path.slice(0, path.lastIndexOf('/'))).catch((made: ZkError) => {
          if (made.code !== NODE_EXISTS) throw made;
        });
      }
    }
  }

  async get(path: string): Promise<{ value: string; stat: ZkStat } | undefined> {
    try {
      const answer = await this.ask('getData', new Writer().bytes(path).flag(false), `get ${path}`);
      return { value: answer.text(), stat: answer.stat() };
    } catch (error) {
      if (error instanceof ZkError && error.code === NO_NODE) return undefined;
      throw error;
    }
  }

  async set(path: string, value: string): Promise<void> {
    await this.ask('setData', new Writer().bytes(path).bytes(value).int(-1), `set ${path}`);
  }

  /** Whether it was there. */
  async delete(path: string, version = -1): Promise<boolean> {
    try {
      await this.ask('delete', new Writer().bytes(path).int(version), `delete ${path}`);
      return true;
    } catch (error) {
      if (error instanceof ZkError && error.code === NO_NODE) return false;
      throw error;
    }
  }

  /** Empty for a path that does not exist. */
  async children(path: string): Promise<string[]> {
    try {
      const answer = await this.ask('getChildren', new Writer().bytes(path).flag(false), `list ${path}`);
      return Array.from({ length: Math.max(0, answer.int()) }, () => answer.text());
    } catch (error) {
      if (error instanceof ZkError && error.code === NO_NODE) return [];
      throw error;
    }
  }

  async acls(path: string): Promise<ZkAcl[]> {
    const answer = await this.ask('getAcl', new Writer().bytes(path), `access list of ${path}`);
    return Array.from({ length: Math.max(0, answer.int()) }, () => ({
      perms: answer.int(),
      scheme: answer.text(),
      id: answer.text(),
    }));
  }

  async deleteBelow(path: string): Promise<void> {
    for (const child of await this.children(path)) {
      await this.deleteBelow(`${path}/${child}`);
      // Someone may make a child meanwhile; then it is not empty.
      await this.delete(`${path}/${child}`).catch((error: ZkError) => {
        if (error.code !== NOT_EMPTY) throw error;
      });
    }
  }

  /** All or nothing. */
  async multi(writes: readonly ZkWrite[]): Promise<void> {
    const body = new Writer();
    for (const write of writes) {
      if ('create' in write) {
        body.int(OPCODES.create).flag(false).int(-1).bytes(write.create).bytes(write.value);
        body.acls(write.acls ?? WORLD).int(write.ephemeral ? 1 : 0);
      } else if ('set' in write) {
        body.int(OPCODES.setData).flag(false).int(-1).bytes(write.set).bytes(write.value).int(-1);
      } else {
        body
          .int(OPCODES.delete)
          .flag(false)
          .int(-1)
          .bytes(write.delete)
          .int(write.version ?? -1);
      }
    }
    await this.ask('multi', body.int(-1).flag(true).int(-1), 'multi');
  }

  /** Writes a node as someone else would register it: a node of another owner is deleted and made anew, at once. */
  async put(path: string, value: string): Promise<void> {
    for (let attempt = 1; ; attempt++) {
      try {
        const there = await this.get(path);
        if (!there) return await this.createAll(path, value);
        if (there.stat.ephemeralOwner === 0n) return await this.set(path, value);
        return await this.multi([{ delete: path }, { create: path, value }]);
      } catch (error) {
        // Someone was quicker, with this node.
        const raced = error instanceof ZkError && [NO_NODE, NODE_EXISTS].includes(error.code);
        if (!raced || attempt === 10) throw error;
      }
    }
  }

  /** Puts, whose nodes may exist, and deletes, whose nodes do, in one transaction. The parents exist. */
  async transact(puts: Record<string, string>, deletes: readonly string[]): Promise<void> {
    const writes: ZkWrite[] = deletes.map((path) => ({ delete: path }));
    for (const [path, value] of Object.entries(puts)) {
      writes.push((await this.get(path)) ? { set: path, value } : { create: path, value });
    }
    await this.multi(writes);
  }

  async auth(scheme: string, credentials: string): Promise<void> {
    await this.ask('auth', new Writer().int(0).bytes(scheme).bytes(credentials), 'auth', -4);
  }

  /** Ends the session: its ephemeral nodes go at once. */
  async close(): Promise<void> {
    await this.ask('close', new Writer(), 'close').catch(() => undefined);
    this.end(new Error('closed'));
  }

  /** Leaves without a word: the session goes on until its timeout. */
  abandon(): void {
    this.end(new Error('abandoned'));
  }
}

/** Ends a session of someone else, whoever holds it, as its expiry would. */
export async function expireSession(host: string, session: bigint): Promise<void> {
  for (let tries = 1; ; tries++) {
    let thief: ZkClient;
    try {
      thief = await ZkClient.connect(host, { session, closeAtOnce: true });
    } catch (error) {
      // The server may hang up before its answer is read, with the session ended or not: the next try tells.
      if (tries === 5) throw error;
      continue;
    }
    thief.abandon();
    if (thief.granted === 0 && tries === 1) throw new Error(`no session ${session}`);
    return;
  }
}
