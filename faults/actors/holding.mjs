// What everybody does who holds locks and leads, by whichever client: how long, how often it looks, and when it leaves.
import { call, now, pause, role, tell } from './actor.mjs';

/** A place in the queue may take long; this long it may take to be told that it did. */
export const WAIT_MS = 30_000;
export const CALL_MS = 10_000;
const LOOK_MS = 50;

let leaving = false;
let stays = 0;
const stay = () => role.stays[stays++ % role.stays.length];

/** Ends what goes on, each at its next look. */
export const leave = () => {
  leaving = true;
};

/** Does something again and again until this process is to leave. It says whether it came to something. */
export async function again(turn) {
  while (!leaving) await pause((await turn()) ? stay() : 200);
}

/** Holds for a while, looking all the time, and says how it ended. `more` is told with the first look. */
export async function hold(of, token, isHeld, more = {}) {
  let kind = 'held';
  for (const until = now() + stay(); now() < until && !leaving; await pause(LOOK_MS)) {
    const at = now(); // before the look: what it says is true of a later moment
    if (!isHeld()) return 'lost';
    tell(kind, { at, of, token, ...(kind === 'held' && more) });
    kind = 'holding';
  }
  return 'released';
}

/** Waits until an election is won, and gives it up where that takes too long. */
export async function elected(of, won, resign) {
  const late = setTimeout(() => void resign().catch(() => {}), WAIT_MS);
  try {
    return await call('campaign', of, WAIT_MS, won);
  } finally {
    clearTimeout(late);
  }
}
