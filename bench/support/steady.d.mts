export function notSteady(): string[];
export function steady(
  what: string,
  slice: (ms: number) => Promise<number>,
  options?: { now?: () => number; tell?: (text: string) => void },
): Promise<boolean>;
export function repeated(
  action: () => Promise<number | { pieces: number; took: number }>,
): (ms: number) => Promise<number>;
