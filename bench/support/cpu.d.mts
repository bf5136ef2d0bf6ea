export function jsThread(): number;
export function wholeProcess(): number;
export function ofProcess(pid: number): number;
