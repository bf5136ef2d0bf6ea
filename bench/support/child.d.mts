export interface Program {
  readonly pid: number | undefined;
  ask(action: string, argument?: unknown): Promise<unknown>;
  on(listener: (message: unknown) => void): void;
  end(): Promise<void>;
}

export function start(program: string, options?: { args?: readonly string[]; nodeArgs?: readonly string[] }): Program;
export function serve(actions: Record<string, (argument: never) => unknown>): void;
