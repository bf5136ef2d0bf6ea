// Time on the processor.

import { readFileSync } from 'node:fs';

/** Milliseconds that this thread, the main one, has worked; where the system doesn't tell, those its event loop was busy. */
export function jsThread() {
  try {
    return Number(readFileSync(`/proc/self/task/${process.pid}/schedstat`, 'utf8').split(' ')[0]) / 1e6;
  } catch {
    return performance.eventLoopUtilization().active;
  }
}

/** Milliseconds that all threads of this process have worked. */
export function wholeProcess() {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}
