/** The logger of the caller, whatever its make, behind one shape. */

import { invalid, kindOf } from './shape.js';

/**
 * What is needed of a logger: some of these methods. `console`, pino, winston and the loggers of Nest and Midway all fit.
 * What has no method of its level goes to the next one: `info` to `log`, `debug` nowhere.
 */
export interface Logger {
  debug?(message: string): unknown;
  info?(message: string): unknown;
  log?(message: string): unknown;
  warn?(message: string): unknown;
  error?(message: string): unknown;
}

export type LogLevel = 'debug' | 'info' | 'warn' | 'error';

/** The one shape that the package logs to. Nothing here ever throws. */
export interface Log {
  /** The lowest level that arrives anywhere. */
  readonly level: LogLevel | 'off';
  write(level: LogLevel, message: string): void;
}

const LEVELS: readonly LogLevel[] = ['debug', 'info', 'warn', 'error'];
const METHODS: Readonly<Record<LogLevel, readonly (keyof Logger)[]>> = {
  debug: ['debug'],
  info: ['info', 'log'],
  warn: ['warn', 'log', 'info'],
  error: ['error', 'warn', 'log', 'info'],
};

type AnyLogger = Logger & { level?: unknown; isLevelEnabled?: unknown };

/** The log of an `options.logger`: none given is `console` from `warn` on, `false` is silence. */
export function logOf(path: string, logger: unknown): Log {
  if (logger === false) return { level: 'off', write() {} };
  if (logger === undefined) return logTo(console, 'warn');
  const usable = (typeof logger === 'object' || typeof logger === 'function') && logger !== null;
  if (!usable || !LEVELS.some((level) => methodOf(logger as AnyLogger, level))) {
    throw invalid(path, `expected false or an object with methods such as info, warn and error, got ${kindOf(logger)}`);
  }
  return logTo(logger as AnyLogger, lowest(logger as AnyLogger));
}

function logTo(logger: AnyLogger, level: LogLevel): Log {
  const from = LEVELS.indexOf(level);
  return {
    level,
    write(of, message) {
      if (LEVELS.indexOf(of) < from) return;
      try {
        const method = methodOf(logger, of);
        const result = method && logger[method]?.(`rollcall: ${message}`);
        if (typeof (result as PromiseLike<unknown> | null | undefined)?.then === 'function') {
          (result as PromiseLike<unknown>).then(undefined, () => {});
        }
      } catch {
        // A logger that fails, at once or later, must not stop a registration or end the process.
      }
    },
  };
}

function methodOf(logger: AnyLogger, level: LogLevel): keyof Logger | undefined {
  return METHODS[level].find((method) => typeof logger[method] === 'function');
}

/** `debug` only for those who say that they want it; else `info`, or the lowest level that the logger reports. */
function lowest(logger: AnyLogger): LogLevel {
  if (typeof logger.isLevelEnabled === 'function') {
    try {
      // By the names of its own methods: Nest's logger has `log` for what others call `info`.
      const isEnabled = (name: string) => (logger.isLevelEnabled as (level: string) => unknown)(name);
      const enabled = LEVELS.find((level) => isEnabled(methodOf(logger, level) ?? level));
      return enabled ?? 'error';
    } catch {
      return 'info';
    }
  }
  return logger.level === 'debug' || logger.level === 'trace' || logger.level === 'silly' ? 'debug' : 'info';
}

/** What was thrown, as text; never throws itself, whatever it is given. */
export function describe(thrown: unknown): string {
  try {
    return `${(thrown as Error | null | undefined)?.stack ?? String(thrown)}`;
  } catch {
    return 'something that has no text';
  }
}
