/** Numbers out of texts, the same in every process. */

/**
 * 32 bits of a text, by its UTF-16 units.
 *
 * Source: FNV-1a (Fowler, Noll, Vo), finished by the mixer of MurmurHash3 (Appleby, public domain), without which texts
 * that differ in their last letter lie side by side on a ring.
 */
export function hashOf(text: string, seed = 0): number {
  let hash = 0x811c9dc5 ^ seed;
  for (let place = 0; place < text.length; place++) {
    const unit = text.charCodeAt(place);
    hash = Math.imul(hash ^ (unit & 0xff), 0x01000193);
    if (unit > 0xff) hash = Math.imul(hash ^ (unit >> 8), 0x01000193);
  }
  return mixed(hash ^ text.length);
}

/** The mixer of MurmurHash3: every bit of the input turns half of the output. */
export function mixed(value: number): number {
  let hash = value;
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}
