/** A new instance gets few calls at first. */

/** What a new instance gets at least of its share. */
const LEAST = 0.1;

/**
 * How much of its share an instance gets: a tenth at first, all of it after `warmUpMs`, in a straight line between.
 *
 * Source: slow start of Envoy: weight × max(10 %, (age / window) ^ (1 / aggression)), here with an aggression of 1.
 */
export function warmth(bornAt: number, now: number, warmUpMs: number): number {
  const age = now - bornAt;
  return age >= warmUpMs ? 1 : Math.max(LEAST, age / warmUpMs);
}
