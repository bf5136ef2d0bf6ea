/** What is needed of the logger of a framework. */
export interface AppLogger {
  log(message: string): unknown;
  warn(message: string): unknown;
  error(message: string): unknown;
  debug?(message: string): unknown;
}
