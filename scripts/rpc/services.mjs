// Writes the services of a protocol, as protocol.mjs reads it, in TypeScript: the table of methods, and the clients.

import { SERVICES } from './methods.mjs';
import { comment, importsOf } from './text.mjs';

/** Services and methods with what methods.mjs has to say of them. Fails where the two do not agree. */
function told(services) {
  return services.map(({ name: service, methods }) => {
    const said = new Map(Object.entries(SERVICES[service]?.methods ?? {}));
    const all = methods.map(({ name, ...method }) => {
      const lower = name.charAt(0).toLowerCase() + name.slice(1);
      const more = said.get(lower);
      if (!more)
        throw new Error(`etcd has ${service}.${lower}: methods.mjs must say what it does and how it is treated`);
      said.delete(lower);
      return { reads: false, long: false, ends: '', ...method, ...more, service, name: lower };
    });
    if (said.size > 0) throw new Error(`methods.mjs speaks of what ${service} does not have: ${[...said.keys()]}`);
    return { name: service, about: SERVICES[service].about, methods: all };
  });
}

/** Whether a method takes a request, apart from those without fields. */
const takes = ({ kind, request }, { messages }) =>
  kind !== 'both' && messages.find(({ name }) => name === request).fields.length > 0;

/** Names of what the messages are in TypeScript. */
const interfaces = ({ messages }) => messages.map(({ name }) => `I${name}`);

// --- services.ts

export function servicesFile(protocol) {
  const services = told(protocol.services);
  const asked = services.map(({ name, methods }) => {
    const lines = methods.map((method) => {
      const request = takes(method, protocol) ? `I${method.request}` : 'Nothing';
      return `${method.name}: ${method.kind === 'unary' ? request : 'Stream'};`;
    });
    return `${name}: {\n${lines.join('\n')}\n};`;
  });
  const rows = services.flatMap(({ methods }) =>
    methods.map(({ service, name, request, response, kind, reads, long }) => {
      const traits = Object.entries({
        kind: kind !== 'unary' && `'${kind}'`,
        reads: written(reads),
        long: written(long),
      });
      const more = traits.filter(([, value]) => value).map(([trait, value]) => `${trait}: ${value}`);
      return `['${service}', '${name}', '${request}', '${response}'${more.length > 0 ? `, { ${more.join(', ')} }` : ''}],`;
    }),
  );
  const text = `/** Stands for a stream. */
export interface Stream {
  stream: true;
}

/** Stands for a request that has no fields. */
export interface Nothing {
  nothing: true;
}

/** What each method takes. */
export interface Requests {
${asked.join('\n')}
}

/** How a method is treated that is not as most: one request and one answer, which writes and is soon done. */
export interface Traits {
  readonly kind?: 'answers' | 'both';
  readonly reads?: true | 'depends';
  readonly long?: true | 'depends';
}

/** A method: its service, its name, the messages of its request and its answer. */
export type MethodRow = readonly [
  service: keyof Requests,
  name: string,
  request: MessageName,
  response: MessageName,
  traits?: Traits,
];

/** Every method. */
export const METHOD_ROWS: readonly MethodRow[] = [
${rows.join('\n')}
];
`;
  return `/** The services of etcd's API, method by method. */

${importsOf(text, interfaces(protocol), 'messages')}${importsOf(text, ['MessageName'], 'schema')}
${text}`;
}

const written = (trait) => (trait === 'depends' ? `'depends'` : trait);

// --- clients.ts

const ONLY_READS = 'Only reads: tried again elsewhere after any failure of the connection or of the member.';
const WRITES = "Writes: tried again only when it was certainly not applied; else the error's `outcomeUnknown` is true.";
const ELSE_WRITES = "else as a write: only when it was certainly not applied, or the error's `outcomeUnknown` is true.";
const OF_STREAMS = {
  both: 'A stream is not opened again: it ends with `error` or `end`.',
  answers: 'A stream is not opened again: it ends with `error`, or with `end` after the last piece.',
};

export function clientsFile(protocol) {
  const services = told(protocol.services);
  const classes = services.map(({ name, about, methods }) => {
    const bodies = methods.map((method) => `${comment(docOf(method), 2)}${methodOf(method, takes(method, protocol))}`);
    return `${comment(about)}export class ${name}Client {
constructor(private readonly client: ICallable<unknown>) {}

${bodies.join('\n\n')}
}`;
  });
  const text = classes.join('\n\n');
  return `/**
 * The six services of etcd, method by method, as etcd3 has them.
 *
 * Every method resolves with etcd's answer as it is; keys keep the prefix of their namespace. It rejects with the
 * errors of \`errors.ts\`: with the class of what etcd refused, with \`GRPCUnavailableError\` when no endpoint could be
 * reached, with \`GRPCDeadlineExceededError\` when the time ran out, with \`GRPCCancelledError\` when its signal fired,
 * with \`ClientClosedError\` after \`close()\`, and with an error of code \`ERR_INVALID_ARGUMENT\`, unsent, when a field of
 * the request is wrong.
 */

import { type CallOptions, type ICallable, type IDuplexStream, type IResponseStream, openStream } from './calls.js';
${importsOf(text, interfaces(protocol), 'messages')}
export * from './calls.js';
export { METHODS, methodOf, type RpcMethod, readsOnly, takesLong } from './methods.js';

${text}

/** The class of each service. */
export const Services = {
${services.map(({ name }) => `${name}: ${name}Client,`).join('\n')}
};
`;
}

function docOf({ kind, does, reads, long, ends }) {
  const again = OF_STREAMS[kind] ?? (reads === 'depends' ? ELSE_WRITES : reads ? ONLY_READS : WRITES);
  return [does, long === true ? 'No default time limit holds.' : '', again, ends].filter(Boolean).join(' ');
}

function methodOf({ service, name, kind, request, response }, takesOne) {
  const parameters = `${takesOne ? `req: I${request}, ` : ''}options?: CallOptions`;
  if (kind === 'unary') {
    return `${name}(${parameters}): Promise<I${response}> {
return this.client.exec('${service}', '${name}', ${takesOne ? 'req' : '{}'}, options);
}`;
  }
  const answer = kind === 'both' ? `IDuplexStream<I${request}, I${response}>` : `IResponseStream<I${response}>`;
  const given = kind === 'both' ? '' : takesOne ? ', req' : ', {}';
  return `${name}(${parameters}): Promise<${answer}> {
return openStream(this.client, { service: '${service}', method: '${name}', isStream: true }, options${given});
}`;
}
