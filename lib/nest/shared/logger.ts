/** What is needed of Nest's logger. */
export interface NestLogger {
  log(message: string): unknown;
  warn(message: string): unknown;
  error(message: string): unknown;
  debug?(message: string): unknown;
}
