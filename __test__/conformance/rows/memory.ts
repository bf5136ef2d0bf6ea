// The embedded registry.

import type { RegistryOptions } from 'rollcall';
import { MemoryServer } from 'rollcall';
import { uniqueName } from '../../support/process.js';
import { inThread, type Scenario, type Step } from '../kit.js';
import { Clients, type Common, type Row, usual } from '../scope.js';

class MemoryScope extends Clients {
  readonly ttlMs = 1000;
  private readonly namespace = uniqueName('suite');
  private readonly server = MemoryServer.of(this.namespace);

  options(more?: Common): RegistryOptions {
    return { backend: 'memory', namespace: this.namespace, ttlMs: this.ttlMs, logger: false, ...more };
  }

  url(query = ''): string {
    return `memory://${this.namespace}?${query}`;
  }

  protected direct(more?: Common): RegistryOptions {
    return this.options(more);
  }

  protected override beside(suffix: string): RegistryOptions {
    return { ...this.options(), backend: 'memory', namespace: `${this.namespace}${suffix}` };
  }

  protected override launch(steps: Step[], more?: Common): Scenario {
    return inThread(this.options(more), steps);
  }

  async outage(): Promise<void> {
    this.server.setAway(true);
  }

  async restore(): Promise<void> {
    this.server.setAway(false);
  }

  async put(name: string, id: string, value: string): Promise<void> {
    this.server.put(name, id, value);
  }

  async remove(name: string, id: string): Promise<boolean> {
    return this.server.remove(name, id);
  }

  async loseSession(name: string, id: string): Promise<void> {
    if (!this.server.expire(name, id)) throw new Error(`no record ${name}/${id}`);
  }

  async wipe(): Promise<void> {
    this.server.wipe();
  }

  override async mortal(name: string, id: string): Promise<{ die(): Promise<void> }> {
    const owner = await this.connect();
    await owner.register({ name, id });
    return {
      die: async () => {
        if (!this.server.crash(name, id)) throw new Error(`no record ${name}/${id}`);
      },
    };
  }

  key(name: string, id: string): string {
    return `${name}/${id}`;
  }
}

export const memory: Row = {
  name: 'memory',
  ttlMs: 1000,
  cannot: {
    oneSided: 'a memory server is away for all its clients or for none',
    slowWay: 'there is no way between a client and a memory server',
    rawRead: 'a memory server has no stored bytes to look at',
    processes: 'a memory server lives inside one process',
    transactions: 'a memory server changes one record at a time',
    compaction: 'a memory server keeps no history',
    codecs: 'a memory server has one form of records',
    prefixes: 'a memory server has no prefix',
    leases: 'a memory server has no lease with an id',
    counts: 'a memory server counts no streams',
    ownSwitch: 'a memory server has no switch of its own',
  },
  capabilities: { ...usual, countsNames: true },
  start: async () => ({ scope: async () => new MemoryScope(), close: async () => {} }),
};
