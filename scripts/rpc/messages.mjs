// Writes the messages and enums of a protocol, as protocol.mjs reads it, in TypeScript.

import { NAMES } from './prose.mjs';
import { doc, importsOf } from './text.mjs';

/** Which services' messages a file has. What both need is in messages-common.ts. */
const FILES = { messages: ['KV', 'Watch', 'Lease'], 'messages-admin': ['Cluster', 'Maintenance', 'Auth'] };
/** Fields of answers that came later are optional, so that what programs have typed for etcd3, as in a mock, still fits. */
const OF_ETCD3 = '3.5';

const SCALARS = {
  bytes: { request: 'Buffer', answer: 'Buffer' },
  string: { request: 'string', answer: 'string' },
  bool: { request: 'boolean', answer: 'boolean' },
  int64: { request: 'Int64', answer: 'string' },
  uint64: { request: 'Int64', answer: 'string' },
  uint32: { request: 'number', answer: 'number' },
};

// --- enums.ts

export function enumsFile({ enums }) {
  return [
    "/** The enums of etcd's API, as etcd3 names them. A request takes the member or its name; an answer holds the name. */",
    ...enums.map(({ name, members }) => {
      const lines = members.map(
        (member) => `${doc(`${name}.${camel(member.name)}`)}${camel(member.name)} = ${member.number},`,
      );
      return `${doc(name)}export enum ${NAMES[name] ?? name} {\n${lines.join('\n')}\n}`;
    }),
  ].join('\n\n');
}

/** `NOT_EQUAL` is NotEqual. */
const camel = (name) => name.toLowerCase().replace(/(?:^|_)(\w)/g, (_, first) => first.toUpperCase());

// --- schema.ts

export function schemaFile({ enums, messages }) {
  const kinds = new Set([...enums, ...messages].map(({ name }) => name));
  const scalars = new Set(
    messages.flatMap(({ fields }) => fields.map(({ kind }) => kind)).filter((kind) => !kinds.has(kind)),
  );
  for (const kind of scalars) if (!SCALARS[kind]) throw new Error(`${kind}: the codec knows no such fields`);
  const rows = messages.map(({ name, fields }) => {
    const list = fields.map(({ number, name, kind, repeated, oneof }) => {
      const more = repeated ? ", '[]'" : oneof && `, '${oneof}'`;
      return `[${number}, '${name}', '${kind}'${more}],`;
    });
    return `${name}: [\n${list.join('\n')}\n],`;
  });
  return `/** The messages of etcd's API on the wire: their fields by number. Older servers share them. */

import { ${enums.map(({ name }) => NAMES[name] ?? name).join(', ')} } from './enums.js';

/** The enums that fields have, by the name used in the table. */
export const ENUMS = {
${enums.map(({ name }) => (NAMES[name] ? `${name}: ${NAMES[name]},` : `${name},`)).join('\n')}
} as const;

/** Kinds of fields besides enums and messages. */
export type Scalar = ${Object.keys(SCALARS)
    .filter((kind) => scalars.has(kind))
    .map((kind) => `'${kind}'`)
    .join(' | ')};

/**
 * A field: its number, its name, its kind (a scalar, an enum or a message), and \`[]\` when it is repeated, or the name
 * of the oneof that it belongs to.
 */
export type FieldRow = readonly [number: number, name: string, kind: string, more?: string];

/** Every message, by its name in the protocol. */
export const MESSAGES = {
${rows.join('\n')}
} as const satisfies Record<string, readonly FieldRow[]>;

/** The name of a message in the protocol. */
export type MessageName = keyof typeof MESSAGES;
`;
}

// --- messages.ts and its neighbours

/** The text of each file, by its name. */
export function messageFiles({ enums, messages, services }) {
  const byName = new Map(messages.map((message) => [message.name, message]));
  /** The messages that a message consists of, itself included. */
  const reach = (name, found = new Set()) => {
    if (!byName.has(name) || found.has(name)) return found;
    found.add(name);
    for (const { kind } of byName.get(name).fields) reach(kind, found);
    return found;
  };
  const answers = new Set();
  const places = new Map();
  for (const { name: service, methods } of services) {
    const [file] = Object.entries(FILES).find(([, names]) => names.includes(service)) ?? [];
    if (!file) throw new Error(`where do the messages of ${service} go?`);
    for (const { request, response } of methods) {
      for (const name of reach(response)) answers.add(name);
      for (const name of [...reach(request), ...reach(response)]) {
        places.set(name, [file, undefined].includes(places.get(name)) ? file : 'messages-common');
      }
    }
  }
  // What no method has, but etcd3 exports, stands where its neighbour does.
  const own = { messages: [], 'messages-admin': [], 'messages-common': [] };
  let place = 'messages-admin';
  for (const message of messages) {
    place = places.get(message.name) ?? place;
    own[place].push(message);
  }
  const enumNames = enums.map(({ name }) => NAMES[name] ?? name);
  const common = ['Int64', ...own['messages-common'].map(({ name }) => `I${name}`)];
  const kinds = new Set(enums.map(({ name }) => name));
  return Object.fromEntries(
    Object.entries(own).map(([file, list]) => {
      const text = list.map((message) => interfaceOf(message, answers.has(message.name), kinds)).join('\n\n');
      const imports =
        file === 'messages-common'
          ? ''
          : importsOf(text, enumNames, 'enums') + importsOf(text, common, 'messages-common');
      return [`${file}.ts`, `${HEADS[file]}\n${imports}${MORE[file] ?? ''}\n${text}\n`];
    }),
  );
}

const HEADS = {
  messages: `/**
 * The messages of etcd's API, as etcd3 names and types them.
 *
 * Requests: what is left out is etcd's default; 64-bit numbers are decimal strings, safe numbers or bigints.
 * Answers: every field is there. A 64-bit number is a decimal string, an enum the name of its member (a number that has
 * no name stays a number), and of a oneof only the member that is set exists. A message that etcd left out is \`null\`,
 * also where the type, which follows etcd3's, does not say so: \`header\` and \`prev_kv\` are the ones to look out for.
 */
`,
  'messages-admin': `/** The messages of the services Cluster, Maintenance and Auth. \`messages.ts\` says what holds for all. */
`,
  'messages-common': `/** What the messages of all services have in common. \`messages.ts\` says what holds for all. */
`,
};
/** What stands before the messages. */
const MORE = {
  messages: `
export type * from './messages-admin.js';
export type * from './messages-common.js';
`,
  'messages-common': `/** A 64-bit number in a request: a decimal string, a number up to 2^53 - 1 or a bigint. Anything else is refused. */
export type Int64 = string | number | bigint;
`,
};

/** A message. `kinds` are the enums. What only programs write may be left out; what etcd answers is there. */
function interfaceOf({ name, fields }, isAnswer, kinds) {
  const head = `${doc(name)}export interface I${name} {`;
  if (fields.length === 0) {
    return `// biome-ignore lint/suspicious/noEmptyInterface: a message without fields\n${head}}`;
  }
  const lines = fields.map((field) => {
    const newer = isAnswer && later(field.since, OF_ETCD3);
    const optional = newer || !isAnswer;
    const isMessage = !SCALARS[field.kind] && !kinds.has(field.kind);
    const type = `${typeOf(field, isAnswer, kinds)}${newer && isMessage && !field.repeated ? ' | null' : ''}`;
    return `${doc(`${name}.${field.name}`)}${field.name}${optional ? '?' : ''}: ${type};`;
  });
  const oneofs = isAnswer ? [...new Set(fields.map(({ oneof }) => oneof).filter(Boolean))] : [];
  for (const oneof of oneofs) {
    const members = fields.filter((field) => field.oneof === oneof).map((field) => `'${field.name}'`);
    lines.push(`${doc(`${name}.${oneof}`)}${oneof}?: ${members.join(' | ')};`);
  }
  return `${head}\n${lines.join('\n')}\n}`;
}

function typeOf({ kind, repeated }, isAnswer, kinds) {
  const name = NAMES[kind] ?? kind;
  let type = SCALARS[kind]?.[isAnswer ? 'answer' : 'request'] ?? `I${kind}`;
  if (kinds.has(kind)) type = isAnswer ? `keyof typeof ${name}` : `${name} | keyof typeof ${name}`;
  if (!repeated) return type;
  return type.includes(' ') ? `(${type})[]` : `${type}[]`;
}

function later(version, than) {
  const [major, minor] = (version || '0.0').split('.').map(Number);
  const [thanMajor, thanMinor] = than.split('.').map(Number);
  return major > thanMajor || (major === thanMajor && minor > thanMinor);
}
