/**
 * A fault run: starts servers, a network that can fail and the processes under test, does to them what the plan says, and
 * gathers what everybody has written down.
 */
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { freePorts } from '../__test__/support/ports.js';
import { runScript, type Script, temporaryFolder, waitFor } from '../__test__/support/process.js';
import { seeded } from '../__test__/support/random.js';
import { type Proxy as Link, startToxiproxy } from '../__test__/support/toxiproxy.js';
import { type Conducted, type Entry, type Fault, THE_NAMES, type Time } from './history.js';
import { ASIDE_MS, PER_TRY_MS } from './rules/called.js';
import {
  type Actor,
  type ActorDeed,
  type Backend,
  CALLED,
  CALM_MS,
  cast,
  type Deed,
  type LinkDeed,
  NAMES,
  type Part,
  plan,
  type ServerDeed,
  type Zone,
} from './schedule.js';
import { consulServers } from './servers/consul.js';
import { etcdServers } from './servers/etcd.js';
import type { Member, Servers } from './servers/servers.js';
import { zookeeperServers } from './servers/zookeeper.js';

export interface RunOptions {
  readonly backend: Backend;
  readonly seed: number;
  readonly minutes: number;
  /** Hears what is done, as it is done. */
  readonly say?: (line: string) => void;
  /** Where the histories stay; a temporary folder that is removed, unless given. */
  readonly folder?: string;
  /** Locks are held and configuration is read as nobody should, to see that it is found. */
  readonly naive?: boolean;
}

const STARTERS: Record<Backend, () => Promise<Servers>> = {
  etcd: etcdServers,
  consul: consulServers,
  zookeeper: zookeeperServers,
};

const LOCK = 'faults/lock';
const ELECTION = 'faults/leader';
/** Of the holders, and of those who share a configuration. */
export const HELD = {
  mutex: '/locks/faults',
  pool: '/locks/faults-pool',
  permits: 2,
  election: '/elections/faults',
  register: 'faults/register',
};
export const SHARED = { of: 'limits', folders: ['faults', 'orders'], changeMs: 700 };
/** Of those who make ids: four worker ids for three of them, so that who is killed has a successor; and a window that outages outlast. */
export const IDS = { service: 'faults', layout: { timeBits: 49, workerBits: 2, seqBits: 12 }, windowMs: 8000 };
/** Of those who do jobs once. */
export const JOBS = { of: 'jobs', everyMs: 2000 };
const TRUTH_EVERY_MS = 200;
const SAMPLE_EVERY_MS = 2000;
const BEAT_MS = 50;
/** A beat that comes this late says that the machine stood still. */
const HICCUP_MS = 500;
/** Of the TTL: renewed every third, so two thirds are left at the worst moment, less the time to come back. */
const SHORT_OUTAGE = 0.4;
const START_MS = 60_000;
const LEAVE_MS = 15_000;

/** What is young grows to 48 MB where there are many calls, which would look like a leak. */
const ENV: Partial<Record<Part, NodeJS.ProcessEnv>> = { caller: { NODE_OPTIONS: '--max-semi-space-size=2' } };

const now = (): Time => Number(process.hrtime.bigint() / 1000n) / 1000;

/** One process under test, and whoever comes after it under the same name. */
class Player {
  script: Script | undefined;
  /** That it is wanted dead. */
  #killed = false;
  #lives = 0;

  constructor(
    readonly actor: Actor,
    private readonly stage: Stage,
    private readonly role: Record<string, unknown>,
  ) {}

  get pid(): number {
    return this.script?.pid ?? -1;
  }

  start(): void {
    const { who, part } = this.actor;
    this.#killed = false;
    // What `n` begins at: above every number of the lives before.
    const first = this.#lives * 10_000;
    const history = join(this.stage.folder, `${idOf(this.actor)}.jsonl`);
    const program = fileURLToPath(new URL(`./actors/${part}.mjs`, import.meta.url));
    this.#lives++;
    this.stage.tell({ kind: 'started', at: now(), who });
    const script = runScript(program, [JSON.stringify({ ...this.role, who, history, first })], ENV[part]);
    this.script = script;
    void script.exit.then(({ code, signal, stderr }) => {
      const how = this.#killed ? 'killed' : code === 0 ? 'left' : 'crashed';
      const why = how === 'crashed' ? `${signal ?? `code ${code}`}: ${stderr.slice(-2000)}` : undefined;
      this.stage.tell({ kind: 'died', at: now(), who, how, ...(why && { why }) });
      this.script = undefined;
    });
  }

  order(order: string, more: Record<string, unknown> = {}): void {
    this.script?.send({ order, ...more });
  }

  signal(signal: NodeJS.Signals): void {
    if (signal === 'SIGKILL') this.#killed = true;
    this.script?.kill(signal);
  }
}

/** Where all of it happens. */
class Stage {
  readonly history: Conducted[] = [];
  constructor(readonly folder: string) {}

  tell(entry: Conducted): void {
    this.history.push(entry);
  }

  /** What everybody has written, one after the other. */
  gathered(): Entry[] {
    return [...this.history, ...read(this.folder)];
  }
}

/** The histories in a folder, one after the other, each as it was written. */
export function read(folder: string): Entry[] {
  return readdirSync(folder)
    .filter((file) => file.endsWith('.jsonl'))
    .flatMap((file) => readFileSync(join(folder, file), 'utf8').split('\n'))
    .flatMap((line) => {
      try {
        return line === '' ? [] : [JSON.parse(line) as Entry];
      } catch {
        return []; // a process that was killed may have left half a line
      }
    });
}

type Links = Readonly<Record<Zone, readonly Link[]>>;

interface Effect {
  readonly servers?: boolean;
  readonly mute?: boolean;
  readonly survivable?: boolean;
  readonly showsMs?: number;
}

class Harm {
  constructor(
    private readonly stage: Stage,
    private readonly servers: Servers,
    private readonly links: Links,
    private readonly players: ReadonlyMap<string, Player>,
    private readonly say: (line: string) => void,
  ) {}

  /** Does it, waits, heals it, and writes it down. */
  async do(deed: Deed): Promise<void> {
    const everybody = [...this.players.keys()];
    switch (deed.to) {
      case 'servers':
        return this.#servers(deed, everybody);
      case 'links': {
        const touched = everybody.filter((who) => this.players.get(who)?.actor.zone === deed.zone);
        return this.#links(deed, touched);
      }
      case 'cluster': {
        const { etcd } = this.servers;
        const act = deed.what === 'compact' ? etcd?.compact() : etcd?.moveLeader();
        const servers = deed.what !== 'compact';
        return this.#during(deed.what, 'the cluster', everybody, { servers, survivable: true }, async () => {
          await act?.catch(() => {}); // no quorum: nothing moved
        });
      }
      case 'actor':
        return this.#actor(deed);
    }
  }

  async #during(
    what: string,
    target: string,
    touches: readonly string[],
    { servers = false, mute = false, survivable = false, showsMs }: Effect,
    act: () => Promise<void>,
    whatEnded: () => Fault['ended'] = () => undefined,
  ): Promise<void> {
    const at = now();
    this.say(`${what}: ${target}`);
    await act();
    const ended = whatEnded();
    const fault = { kind: 'fault', at, until: now(), what, target, touches, servers, mute, survivable } as const;
    const shown = showsMs !== undefined && { shownUntil: fault.until + showsMs };
    this.stage.tell({ ...fault, ...(ended && { ended }), ...shown });
    this.say(`healed after ${((fault.until - at) / 1000).toFixed(1)} s: ${what}: ${target}`);
  }

  async #servers(deed: ServerDeed & Deed, touches: readonly string[]): Promise<void> {
    const { members } = this.servers;
    const leader = await this.servers.leader().catch(() => members[0] as Member);
    const followers = members.filter((member) => member !== leader);
    const hit: readonly Member[] = {
      'member 1': members.slice(0, 1),
      'member 2': members.slice(1, 2),
      'member 3': members.slice(2, 3),
      leader: [leader],
      two: [leader, ...followers.slice(0, 1)],
      all: members,
    }[deed.which];
    const target = deed.which === 'leader' ? `the leader, ${leader.name}` : deed.which;
    const revokes = deed.what === 'freeze' && hit.includes(leader) && this.servers.stoppedLeaderRevokes === true;
    const survivable = hit.length === 1 && this.servers.interchangeable && !revokes;
    const act = async (): Promise<void> => {
      if (deed.what === 'freeze') {
        for (const member of hit) member.freeze();
        await delay(deed.lastsMs);
        for (const member of hit) member.thaw();
        return;
      }
      await Promise.all(hit.map((member) => member.kill()));
      await delay(deed.lastsMs);
      await Promise.all(hit.map((member) => member.start()));
    };
    const showsMs = deed.what === 'freeze' ? this.servers.stoppedShowsMs : undefined;
    const of = { servers: true, survivable, ...(showsMs !== undefined && { showsMs }) };
    await this.#during(deed.what, target, touches, of, act, () => (revokes ? {} : undefined));
  }

  async #links(deed: LinkDeed & Deed, touches: readonly string[]): Promise<void> {
    const all = this.links[deed.zone];
    const hit = deed.member === 'all' ? all : all.slice(deed.member, deed.member + 1);
    const target = `zone ${deed.zone}, ${deed.member === 'all' ? 'all members' : `member ${deed.member + 1}`}`;
    const fail: Record<LinkDeed['what'], (link: Link) => Promise<unknown>> = {
      'black hole': (link) => link.timeout(),
      'lost answers': (link) => link.loseAnswers(),
      'lost requests': (link) => link.addToxic({ type: 'timeout', stream: 'upstream', attributes: { timeout: 0 } }),
      reset: (link) => link.resetPeer(),
      refused: (link) => link.setEnabled(false),
      latency: (link) => link.latency(150, 100),
    };
    // An outage that is shorter than what is left of a TTL between two renewals costs nothing.
    const short = deed.lastsMs < SHORT_OUTAGE * this.servers.bounds.ttlMs;
    const one = hit.length === 1 && this.servers.interchangeable;
    const survivable = short || one || deed.what === 'latency';
    await this.#during(deed.what, target, touches, { survivable }, async () => {
      await Promise.all(hit.map(fail[deed.what]));
      await delay(deed.lastsMs);
      await Promise.all(hit.map((link) => link.clear()));
    });
  }

  async #actor(deed: ActorDeed & Deed): Promise<void> {
    const { who } = deed;
    const player = this.players.get(who) as Player;
    const { actor } = player;
    switch (deed.what) {
      case 'update':
      case 'reregister':
      case 'withdraw':
      case 'restore':
        return player.order(deed.what);
      case 'kill':
        return this.#during('kill', who, [who], {}, async () => {
          player.signal('SIGKILL');
          await delay(deed.lastsMs);
          player.start();
        });
      case 'freeze':
        return this.#during('freeze', who, [who], { mute: true }, async () => {
          player.signal('SIGSTOP');
          await delay(deed.lastsMs);
          player.signal('SIGCONT');
        });
      case 'block':
        return this.#during('block the event loop', who, [who], { mute: true, survivable: true }, async () => {
          player.order('block', { ms: deed.lastsMs });
          await delay(deed.lastsMs);
        });
      case 'remove':
        return this.#during('take the record away', who, [who], {}, async () => {
          await this.servers.remove(actor.name, idOf(actor)).catch(() => {}); // the servers are not to be reached
        });
      case 'revoke':
        return this.#revoke(actor);
    }
  }

  /** Of a registrar its own lease; of the others that of the holder of their lock, whoever it is. */
  async #revoke(actor: Actor): Promise<void> {
    const { who, part, name } = actor;
    const { etcd, keyOf } = this.servers;
    const lock = { candidate: LOCK, holder: HELD.mutex }[part as string];
    const what = lock === undefined ? { key: keyOf?.(name, idOf(actor)) ?? '' } : { prefix: `${lock}/` };
    const touches = lock === undefined ? [who] : [...this.players.keys()].filter((one) => one.startsWith(part));
    let token: number | undefined;
    const revoke = async (): Promise<void> => {
      token = await etcd?.revoke(what).catch(() => undefined);
    };
    const whatEnded = (): Fault['ended'] => (lock && token !== undefined ? { of: lock, token } : undefined);
    const target = lock === undefined ? who : `the holder of ${lock}`;
    await this.#during('revoke the lease', target, touches, {}, revoke, whatEnded);
  }
}

const idOf = (actor: Actor): string => actor.who.replace(' ', '-');

async function network(servers: Servers): Promise<{ links: Links; close(): Promise<void> }> {
  const toxiproxy = await startToxiproxy();
  const zone = (): Promise<Link[]> => Promise.all(servers.members.map(({ host }) => toxiproxy.proxy(host)));
  const [a, b, c] = await Promise.all([zone(), zone(), zone()]);
  return { links: { a, b, c }, close: () => toxiproxy.close() };
}

/** Reads what the servers hold, over and over. */
async function watchTruth(stage: Stage, servers: Servers, signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    const at = now();
    try {
      const names = await servers.truth(NAMES);
      stage.tell({ kind: 'truth', at, until: now(), names });
    } catch {
      // Nobody knows the truth while the servers are harmed.
    }
    await delay(TRUTH_EVERY_MS);
  }
}

function sample(stage: Stage, players: Iterable<Player>): void {
  for (const { pid, actor } of players) {
    try {
      const status = readFileSync(`/proc/${pid}/status`, 'utf8');
      const number = (field: string): number => Number(status.match(new RegExp(`^${field}:\\s+(\\d+)`, 'm'))?.[1]);
      const descriptors = readdirSync(`/proc/${pid}/fd`).length;
      const rssMb = number('VmRSS') / 1024;
      // One that is dying has no memory any more.
      if (!(rssMb > 0)) continue;
      stage.tell({ kind: 'sample', at: now(), who: actor.who, rssMb, threads: number('Threads'), descriptors });
    } catch {
      // It has just been killed.
    }
  }
}

/** Runs it, and gives what was written down. Rejects only when the run itself can't go on. */
export async function run({
  backend,
  seed,
  minutes,
  say = () => {},
  folder: kept,
  naive,
}: RunOptions): Promise<Entry[]> {
  const folder = kept ?? temporaryFolder('rollcall-faults-').path;
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  const undo: (() => Promise<void> | void)[] = [];
  try {
    say(`starting three members of ${backend}`);
    const servers = await STARTERS[backend]();
    undo.push(() => servers.close());
    const { links, close } = await network(servers);
    undo.push(close);

    const stage = new Stage(folder);
    const { deeds, quietFromMs } = plan(seed, backend, minutes, servers.bounds.repairMs);
    const actors = cast(backend);
    const ports = await freePorts(actors.length);
    const chance = seeded(seed);
    const players = new Map(
      actors.map((actor, i) => {
        const hosts = links[actor.zone].map(({ host }) => host);
        const role = {
          ...{
            id: idOf(actor),
            name: actor.name,
            names: NAMES,
            theNames: THE_NAMES,
            called: CALLED,
            perTryMs: PER_TRY_MS,
            asideMs: ASIDE_MS,
            port: ports[i],
          },
          ...{ lock: LOCK, election: ELECTION, held: HELD, shared: SHARED, ids: IDS, jobs: JOBS, naive },
          options: { ...servers.options(hosts), ttlMs: servers.bounds.ttlMs },
          stays: Array.from({ length: 64 }, () => Math.round(300 + chance() * 2500)),
        };
        return [actor.who, new Player(actor, stage, role)] as const;
      }),
    );
    undo.push(() => {
      for (const player of players.values()) player.signal('SIGKILL');
    });

    say(`starting ${players.size} processes`);
    stage.tell({ kind: 'begin', at: now(), seed, backend, minutes, ...servers.bounds });
    const over = new AbortController();
    let beat = now();
    const beats = setInterval(() => {
      if (now() - beat > HICCUP_MS) stage.tell({ kind: 'hiccup', at: beat, until: now() });
      beat = now();
    }, BEAT_MS);
    const samples = setInterval(() => sample(stage, players.values()), SAMPLE_EVERY_MS);
    const truths = watchTruth(stage, servers, over.signal);
    undo.push(async () => {
      over.abort();
      clearInterval(beats);
      clearInterval(samples);
      await truths;
    });

    for (const player of players.values()) player.start();
    const ready = (player: Player) => player.script?.line((line) => line.ready === true, { timeoutMs: START_MS });
    await Promise.all([...players.values()].map(ready));

    const began = now();
    const seconds = (): string => `${((now() - began) / 1000).toFixed(1).padStart(6)} s`;
    const harm = new Harm(stage, servers, links, players, (line) => say(`${seconds()}  ${line}`));
    await Promise.all(
      deeds.map(async (deed) => {
        await delay(Math.max(0, deed.at - (now() - began)));
        await harm.do(deed);
      }),
    );

    say(`${seconds()}  all is healed; repairs have ${servers.bounds.repairMs / 1000} s`);
    await delay(Math.max(quietFromMs - (now() - began), 0) + servers.bounds.repairMs);
    stage.tell({ kind: 'calm', at: now() });
    await delay(CALM_MS);
    over.abort();
    await truths;
    stage.tell({ kind: 'end', at: now() });
    for (const player of players.values()) player.order('leave');
    await waitFor(() => [...players.values()].every(({ script }) => !script), {
      timeoutMs: LEAVE_MS,
      what: 'every process to leave',
    }).catch(() => {
      // Those that did not leave have a call that was not settled in time, if that is why.
      for (const player of players.values()) {
        if (player.script)
          stage.tell({ kind: 'died', at: now(), who: player.actor.who, how: 'crashed', why: 'it did not leave' });
      }
    });
    const history = stage.gathered();
    if (kept !== undefined)
      writeFileSync(
        join(folder, 'conductor.jsonl'),
        stage.history.map((entry) => `${JSON.stringify(entry)}\n`).join(''),
      );
    return history;
  } finally {
    for (const end of undo.reverse()) await end();
  }
}
