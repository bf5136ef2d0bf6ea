/** The copies of grpc-js in a program. */

import { createRequire } from 'node:module';
import { resolve } from 'node:path';
import { invalid, kindOf } from '../common/shape.js';
import { Grpc, type GrpcModule } from './compat.js';

const NAME = '@grpc/grpc-js';
/** By what both faces of a copy share: `import * as grpc` gives another object than `require()`. */
const known = new WeakMap<object, Grpc>();

/** Those that were handed in, else those that are found. @throws `ERR_INVALID_ARGUMENT` */
export function copies(given: unknown): Grpc[] {
  if (given === undefined) {
    const own = found();
    if (own.length > 0) return own;
    throw invalid('options.grpc', `${NAME} is not found: install it, or hand the module in`);
  }
  const list: unknown[] = Array.isArray(given) ? given : [given];
  if (list.length === 0) throw invalid('options.grpc', `expected the module ${NAME}, or several of it`);
  return unique(
    list.map((module, place) => copy(module, Array.isArray(given) ? `options.grpc[${place}]` : 'options.grpc')),
  );
}

function found(): Grpc[] {
  // The program's own first: it makes the channels. Where it has none, or is none, as in a worker, ours.
  const from = [process.argv[1], __filename].flatMap((file) => (file ? [resolve(file)] : []));
  return unique(
    from.flatMap((file) => {
      try {
        return [copy(createRequire(file)(NAME), 'options.grpc')];
      } catch {
        return [];
      }
    }),
  );
}

function copy(value: unknown, path: string): Grpc {
  const { experimental, Client, Metadata, status, connectivityState, credentials } = (value ??
    {}) as Partial<GrpcModule>;
  const isOne =
    typeof (experimental as { registerResolver?: unknown } | undefined)?.registerResolver === 'function' &&
    typeof Client === 'function' &&
    typeof Metadata === 'function' &&
    !!(status && connectivityState && credentials);
  if (!isOne) throw invalid(path, `expected the module ${NAME}, from 1.10 on, got ${kindOf(value)}`);
  const grpc = known.get(experimental as object) ?? new Grpc(value as GrpcModule);
  known.set(experimental as object, grpc);
  return grpc;
}

const unique = (all: readonly Grpc[]): Grpc[] => [...new Set(all)];
