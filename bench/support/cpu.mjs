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

/** Milliseconds that another process has worked, in steps of 10; NaN where the system does not tell. */
export function ofProcess(pid) {
  try {
    const fields = readFileSync(`/proc/${pid}/stat`, 'utf8')
      .replace(/^.*\) /s, '')
      .split(' ');
    return (Number(fields[11]) + Number(fields[12])) * 10; // user and system, in hundredths of a second
  } catch {
    return Number.NaN;
  }
}
