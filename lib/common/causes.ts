/** What lies below an error. */

/** What may be asked of an error of the network, whatever made it. */
export type ErrorBag = Partial<Record<'code' | 'syscall' | 'cause' | 'errors' | 'message', unknown>>;

/** How far causes are followed. */
const DEPTH = 5;

/** Its fields; none of what is no object. */
export const bagOf = (error: unknown): ErrorBag => (typeof error === 'object' && error !== null ? error : {});

/**
 * Whether an error, or what it was caused by, is such a one: `fetch` hides it in a cause, a host of several addresses in a list
 * of errors, all of which have to be.
 */
export function isCausedBy(error: unknown, is: (error: ErrorBag) => boolean, depth = DEPTH): boolean {
  if (typeof error !== 'object' || error === null || depth === 0) return false;
  if (is(error)) return true;
  const { cause, errors } = bagOf(error);
  if (Array.isArray(errors) && errors.length > 0) return errors.every((one) => isCausedBy(one, is, depth - 1));
  return isCausedBy(cause, is, depth - 1);
}
