import { afterEach, describe, expect, it, vi } from 'vitest';
import { logOf } from '../../lib/common/logger.js';

afterEach(() => vi.restoreAllMocks());

const all = ['debug', 'info', 'warn', 'error'] as const;
const writeAll = (logger: unknown) => {
  const log = logOf('options.logger', logger);
  for (const level of all) log.write(level, level);
};

/** A logger with these methods, and what it was told. */
function recorder(methods: readonly string[], more: object = {}) {
  const told: string[] = [];
  const logger = Object.fromEntries(
    methods.map((method) => [method, (message: string) => void told.push(`${method}: ${message}`)]),
  );
  return { logger: Object.assign(logger, more), told };
}

describe('a logger', () => {
  it('of none given is console, from warn on', () => {
    const spies = all.map((level) => vi.spyOn(console, level).mockImplementation(() => {}));
    writeAll(undefined);
    expect(spies.map((spy) => spy.mock.calls)).toEqual([[], [], [['rollcall: warn']], [['rollcall: error']]]);
  });

  it('of false is silent', () => {
    const spies = all.map((level) => vi.spyOn(console, level).mockImplementation(() => {}));
    writeAll(false);
    for (const spy of spies) expect(spy).not.toHaveBeenCalled();
  });

  it('like that of Nest hears info as log', () => {
    const { logger, told } = recorder(['log', 'warn', 'error', 'debug', 'verbose', 'fatal']);
    writeAll(logger);
    expect(told).toEqual(['log: rollcall: info', 'warn: rollcall: warn', 'error: rollcall: error']);
  });

  it('like pino is asked for its levels', () => {
    const { logger, told } = recorder(all, {
      isLevelEnabled(this: object, level: string) {
        return this === logger && level !== 'debug' && level !== 'info';
      },
    });
    writeAll(logger);
    expect(told).toEqual(['warn: rollcall: warn', 'error: rollcall: error']);
  });

  it('like the one of Nest is asked for the names of its own methods', () => {
    const { logger, told } = recorder(['log', 'warn', 'error', 'debug'], {
      isLevelEnabled: (level: string) => ['log', 'warn', 'error'].includes(level),
    });
    writeAll(logger);
    expect(told).toEqual(['log: rollcall: info', 'warn: rollcall: warn', 'error: rollcall: error']);
  });

  it('that wants debug gets it', () => {
    const { logger, told } = recorder(all, { level: 'debug' });
    writeAll(logger);
    expect(told).toHaveLength(4);
  });

  it('with one method gets what it can', () => {
    const { logger, told } = recorder(['log']);
    writeAll(logger);
    expect(told).toEqual(['log: rollcall: info', 'log: rollcall: warn', 'log: rollcall: error']);
  });

  it('that rejects, or loses its methods, harms nobody', async () => {
    writeAll({ info: () => Promise.reject(new Error('disk full')) });
    let looks = 0;
    writeAll({
      get info() {
        if (looks++ > 0) throw new Error('gone');
        return () => {};
      },
    });
    await new Promise(setImmediate); // an unhandled rejection would fail the run
    expect(looks).toBeGreaterThan(1);
  });

  it('that throws harms nobody', () => {
    writeAll({
      info() {
        throw new Error('disk full');
      },
    });
  });
});
