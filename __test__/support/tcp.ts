// Small TCP servers and proxies inside the test process.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import type { AddressInfo, Server, Socket } from 'node:net';
import { connect, createServer } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';

function listen(server: Server, port = 0): Promise<number> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen({ port, host: '127.0.0.1' }, () => {
      server.off('error', reject);
      resolve((server.address() as AddressInfo).port);
    });
  });
}

export interface SilentServer {
  readonly host: string;
  /** Connections that have come so far. */
  readonly accepted: number;
  /** Those that are open. */
  readonly open: number;
  /** What clients have sent. */
  readonly bytes: number;
  close(): Promise<void>;
}

/** Accepts connections, reads what comes and never answers. */
export async function startSilentServer(): Promise<SilentServer> {
  const sockets = new Set<Socket>();
  let accepted = 0;
  let bytes = 0;
  const server = createServer((socket) => {
    accepted++;
    sockets.add(socket);
    socket.on('data', (chunk) => {
      bytes += chunk.length;
    });
    socket.on('error', () => {});
    socket.on('close', () => sockets.delete(socket));
  });
  const port = await listen(server);
  return {
    host: `127.0.0.1:${port}`,
    get accepted() {
      return accepted;
    },
    get open() {
      return sockets.size;
    },
    get bytes() {
      return bytes;
    },
    async close() {
      const closed = new Promise((resolve) => server.close(resolve));
      for (const socket of sockets) socket.destroy();
      await closed;
    },
  };
}

/** A host that takes no connection and refuses none: SYNs are dropped, as by a firewall. */
export async function startBlackHole(): Promise<{ host: string; close(): void }> {
  const listens = `require('node:net').createServer().listen({ host: '127.0.0.1', port: 0, backlog: 1 }, function () {
    console.log(this.address().port);
  })`;
  const child = spawn(process.execPath, ['-e', listens], { stdio: ['ignore', 'pipe', 'inherit'] });
  const [port] = await once(child.stdout, 'data');
  child.kill('SIGSTOP'); // accepts nothing any more: its queue can be filled
  const sockets: Socket[] = [];
  for (let taken = true; taken; ) {
    const socket = connect(Number(port), '127.0.0.1').on('error', () => {});
    sockets.push(socket);
    taken = await Promise.race([once(socket, 'connect').then(() => true), delay(500, false)]);
  }
  return {
    host: `127.0.0.1:${String(port).trim()}`,
    close() {
      for (const socket of sockets) socket.destroy();
      child.kill('SIGKILL');
    },
  };
}

const preface = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n');
const HEADERS = 1;

/** Sees the frames of one direction of a plain-text HTTP/2 connection; of anything else, nothing. */
class Frames {
  private buffer = Buffer.alloc(0);
  private plain: boolean | undefined;

  constructor(private readonly withPreface: boolean) {
    if (!withPreface) this.plain = true;
  }

  /** Whole frames up to the end of the chunk, by their header. */
  take(chunk: Buffer): { type: number; stream: number }[] {
    if (this.plain === false) return [];
    this.buffer = Buffer.concat([this.buffer, chunk]);
    if (this.withPreface && this.plain === undefined) {
      if (this.buffer.length < preface.length) return [];
      this.plain = this.buffer.subarray(0, preface.length).equals(preface);
      if (!this.plain) return [];
      this.buffer = this.buffer.subarray(preface.length);
    }
    const frames = [];
    while (this.buffer.length >= 9) {
      const length = this.buffer.readUIntBE(0, 3);
      if (this.buffer.length < 9 + length) break;
      frames.push({ type: this.buffer.readUInt8(3), stream: this.buffer.readUInt32BE(5) & 0x7fffffff });
      this.buffer = this.buffer.subarray(9 + length);
    }
    return frames;
  }
}

export interface TcpProxy {
  /** host:port, for the client */
  readonly host: string;
  readonly upstream: string;
  /** Connections that have come so far. */
  readonly accepted: number;
  /** Those that are open. */
  readonly open: number;
  /** Bytes passed on, from client to server and back. */
  readonly bytesUp: number;
  readonly bytesDown: number;
  /** HTTP/2 requests (in plain text) that clients have begun: unary calls and streams. */
  readonly requests: number;
  /** Resets all open connections. New ones are served. */
  sever(): void;
  /** Off: open connections are reset and new ones too, at once. */
  setEnabled(enabled: boolean): void;
  /** Nothing passes, in either or in one direction, and nothing is closed. What comes is kept for `release`. */
  hold(direction?: 'both' | 'up' | 'down'): void;
  release(): void;
  /** From now on answers are thrown away while requests reach the server; connections stand. `sever` before healing. */
  dropAnswers(drop?: boolean): void;
  /**
   * The answer of the next HTTP/2 request is lost: the server gets the request, and when its answer comes the
   * connection is reset instead. Resolves then.
   */
  loseNextAnswer(): Promise<void>;
  close(): Promise<void>;
}

interface Pair {
  readonly client: Socket;
  readonly server: Socket;
}

/** A proxy in front of host:port. */
export async function startTcpProxy(upstream: string): Promise<TcpProxy> {
  const colon = upstream.lastIndexOf(':');
  const target = { host: upstream.slice(0, colon), port: Number(upstream.slice(colon + 1)) };
  const pairs = new Set<Pair>();
  let enabled = true;
  let heldUp = false;
  let heldDown = false;
  let dropping = false;
  let accepted = 0;
  let bytesUp = 0;
  let bytesDown = 0;
  let requests = 0;
  // Answers to lose: first armed, then bound to the next request.
  const armed: (() => void)[] = [];

  const cut = ({ client, server }: Pair): void => {
    for (const socket of [client, server]) {
      if (socket.destroyed) continue;
      if (socket.connecting) socket.destroy();
      else socket.resetAndDestroy();
    }
  };
  const flow = (socket: Socket, held: boolean): void => {
    if (held) socket.pause();
    else socket.resume();
  };

  const proxy = createServer({ allowHalfOpen: true }, (client) => {
    accepted++;
    client.on('error', () => {});
    if (!enabled) {
      client.resetAndDestroy();
      return;
    }
    const server = connect({ ...target, allowHalfOpen: true, noDelay: true });
    client.setNoDelay(true);
    const pair: Pair = { client, server };
    pairs.add(pair);
    const up = new Frames(true);
    const down = new Frames(false);
    const losing = new Map<number, () => void>();

    client.on('data', (chunk: Buffer) => {
      for (const { type, stream } of up.take(chunk)) {
        // Trailers of a request are HEADERS as well, but gRPC clients send none.
        if (type !== HEADERS) continue;
        requests++;
        const lost = armed.shift();
        if (lost) losing.set(stream, lost);
      }
      bytesUp += chunk.length;
      if (!server.write(chunk) && !heldUp) {
        client.pause();
        server.once('drain', () => flow(client, heldUp));
      }
    });
    server.on('data', (chunk: Buffer) => {
      const answered = down.take(chunk).find(({ stream }) => losing.has(stream));
      if (answered) {
        const lost = losing.get(answered.stream);
        losing.delete(answered.stream);
        cut(pair);
        lost?.();
        return;
      }
      if (dropping) return;
      bytesDown += chunk.length;
      if (!client.write(chunk) && !heldDown) {
        server.pause();
        client.once('drain', () => flow(server, heldDown));
      }
    });
    client.on('end', () => {
      server.end();
      if (server.readableEnded) client.end();
    });
    // A server that closes has answered, too.
    server.on('end', () => dropping || client.end());
    for (const socket of [client, server]) socket.on('error', () => cut(pair));
    client.on('close', () => {
      pairs.delete(pair);
      if (!server.destroyed) server.end();
    });
    server.on('close', () => {
      // An answer that was to be lost but never came is to be lost on the next connection.
      armed.unshift(...losing.values());
      losing.clear();
      if (!client.destroyed && !dropping) client.end();
    });
    if (heldUp) client.pause();
    if (heldDown) server.pause();
  });
  const port = await listen(proxy);

  const sever = (): void => {
    for (const pair of pairs) cut(pair);
  };
  const holding = (up: boolean, down: boolean): void => {
    heldUp = up;
    heldDown = down;
    for (const { client, server } of pairs) {
      flow(client, heldUp);
      flow(server, heldDown);
    }
  };
  return {
    host: `127.0.0.1:${port}`,
    upstream,
    get accepted() {
      return accepted;
    },
    get open() {
      return pairs.size;
    },
    get bytesUp() {
      return bytesUp;
    },
    get bytesDown() {
      return bytesDown;
    },
    get requests() {
      return requests;
    },
    sever,
    setEnabled(on) {
      enabled = on;
      if (!on) sever();
    },
    hold(direction = 'both') {
      holding(direction !== 'down', direction !== 'up');
    },
    release() {
      holding(false, false);
    },
    dropAnswers(drop = true) {
      dropping = drop;
    },
    loseNextAnswer() {
      return new Promise((resolve) => {
        armed.push(resolve);
      });
    },
    async close() {
      const closed = new Promise((resolve) => proxy.close(resolve));
      sever();
      await closed;
    },
  };
}
