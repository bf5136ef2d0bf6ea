/** What is taken from Midway's container: the configuration and the logger. */

import { type IMidwayContainer, MidwayConfigService, MidwayLoggerService } from '@midwayjs/core';
import type { AppLogger } from '../frameworks/logger.js';

/** A part of the configuration; a copy of its first level, because Midway's `ServiceFactory` writes into what it gets. */
export function configOf<Config extends object>(container: IMidwayContainer, key: string): Config {
  const config: unknown = container.get(MidwayConfigService).getConfiguration(key);
  return { ...(config as Config | undefined) } as Config;
}

/** The part of the time for a health check that one question may take, in milliseconds: the answer is to be ours. */
export function healthBudgetMs(container: IMidwayContainer): number {
  const limit: unknown = container.get(MidwayConfigService).getConfiguration('core.healthCheckTimeout');
  return Math.max(1, Math.floor((typeof limit === 'number' && limit > 0 ? limit : 1000) * 0.9));
}

interface MidwayLogger {
  debug(message: string): unknown;
  info(message: string): unknown;
  warn(message: string): unknown;
  error(message: string): unknown;
}

/** The logger of the application: that of the core says nothing below `warn`, and so never that something is well again. */
export function loggerOf(container: IMidwayContainer): AppLogger {
  const found = container.get(MidwayLoggerService).getLogger('appLogger') as MidwayLogger | undefined;
  const logger = found ?? console;
  return {
    log: (message) => logger.info(message),
    warn: (message) => logger.warn(message),
    error: (message) => logger.error(message),
    debug: (message) => logger.debug(message),
  };
}
