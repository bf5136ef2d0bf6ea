/** Which registry, when the program does not say. */

/** The environment variable that holds its URL. */
export const VARIABLE = 'ROLLCALL_REGISTRY';

/** That URL, unless the variable is not set or empty. */
export function urlOfVariable(): string | undefined {
  return process.env[VARIABLE] || undefined;
}

/** What is logged when there is no such URL either. */
export const NONE_GIVEN = `no registry given, neither as an option nor by ${VARIABLE}: using memory://default`;
