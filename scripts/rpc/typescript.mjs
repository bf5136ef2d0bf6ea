// Writes a protocol, as protocol.mjs reads it, in TypeScript.

import { LEFT_OUT, NAMES, PROSE } from './prose.mjs';

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

/** The text of every generated file, by its name, before it is formatted. Throws where prose and protocol do not agree. */
export function filesOf({ enums, messages: all, services: asked }) {
  const messages = all.filter(({ name }) => !LEFT_OUT.includes(name));
  const services = asked.map(({ name, methods }) => ({
    name,
    methods: methods.filter((method) => !LEFT_OUT.includes(method.name)),
  }));
  const said = new Set();
  const texts = {
    'enums.ts': enumsFile(enums, said),
    'schema.ts': schemaFile(enums, messages),
    'services.ts': servicesFile(services, messages),
    ...messageFiles(enums, messages, services, said),
  };
  const unused = Object.keys(PROSE).filter((name) => !said.has(name));
  if (unused.length > 0) throw new Error(`prose.mjs speaks of what etcd does not have: ${unused.join(', ')}`);
  return texts;
}

// --- enums.ts

function enumsFile(enums, said) {
  return [
    "/** The enums of etcd's API, as etcd3 names them. A request takes the member or its name; an answer holds the name. */",
    ...enums.map(({ name, members }) => {
      const lines = members.map(
        (member) => `${doc(`${name}.${camel(member.name)}`, said)}${camel(member.name)} = ${member.number},`,
      );
      return `${doc(name, said)}export enum ${NAMES[name] ?? name} {\n${lines.join('\n')}\n}`;
    }),
  ].join('\n\n');
}

/** `NOT_EQUAL` is NotEqual. */
const camel = (name) => name.toLowerCase().replace(/(?:^|_)(\w)/g, (_, first) => first.toUpperCase());

// --- schema.ts

function schemaFile(enums, messages) {
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

// --- services.ts

function servicesFile(services, messages) {
  const empty = new Set(messages.filter(({ fields }) => fields.length === 0).map(({ name }) => name));
  const rows = services.flatMap(({ name: service, methods }) =>
    methods.map(
      ({ name, request, response, kind }) =>
        `['${service}', '${lower(name)}', '${request}', '${response}', '${kind}'],`,
    ),
  );
  const taken = (method) =>
    method.kind !== 'unary' ? 'Stream' : empty.has(method.request) ? 'Nothing' : `I${method.request}`;
  const requests = services.map(({ name, methods }) => {
    const lines = methods.map((method) => `${lower(method.name)}: ${taken(method)};`);
    return `${name}: {\n${lines.join('\n')}\n};`;
  });
  const imported = [...new Set(services.flatMap(({ methods }) => methods.map(taken)))].filter((name) =>
    /^I[A-Z]/.test(name),
  );
  return `/** The services of etcd's API, method by method. */

import type { ${imported.join(', ')} } from './messages.js';

/** Stands for a stream. */
export interface Stream {
  stream: true;
}

/** Stands for a request that has no fields. */
export interface Nothing {
  nothing: true;
}

/** What each method takes. */
export interface Requests {
${requests.join('\n')}
}

/** Every method: service, name, message of the request, message of the answer, and which of the two are streams. */
export const METHOD_ROWS = [
${rows.join('\n')}
] as const;
`;
}

const lower = (name) => name.charAt(0).toLowerCase() + name.slice(1);

// --- messages.ts and its neighbours

function messageFiles(enums, messages, services, said) {
  const byName = new Map(messages.map((message) => [message.name, message]));
  /** The messages that a message consists of, itself included. */
  const reach = (name, found = new Set()) => {
    if (!byName.has(name) || found.has(name)) return found;
    found.add(name);
    for (const { kind } of byName.get(name).fields) reach(kind, found);
    return found;
  };
  const methods = services.flatMap((service) =>
    service.methods.map((method) => ({ ...method, service: service.name })),
  );
  const answers = new Set(methods.flatMap(({ response }) => [...reach(response)]));
  const places = new Map();
  for (const [file, names] of Object.entries(FILES)) {
    const own = methods.filter(({ service }) => names.includes(service));
    for (const name of own.flatMap(({ request, response }) => [...reach(request), ...reach(response)])) {
      places.set(name, places.has(name) && places.get(name) !== file ? 'messages-common' : file);
    }
  }
  const placed = { messages: [], 'messages-admin': [], 'messages-common': [] };
  // What no method has, but etcd3 exports, stands where its neighbour does.
  let place = 'messages-admin';
  for (const message of messages) {
    place = places.get(message.name) ?? place;
    placed[place].push(message);
  }
  const enumNames = new Set(enums.map(({ name }) => name));
  return Object.fromEntries(
    Object.entries(placed).map(([file, own]) => {
      const text = own.map((message) => interfaceOf(message, answers.has(message.name), enumNames, said)).join('\n\n');
      const names = (from, as) =>
        from.filter((name) => new RegExp(`\\b${name}\\b(?! \\{)`).test(text)).map(as ?? ((name) => name));
      const local = new Set(own.map(({ name }) => `I${name}`));
      const common = ['Int64', ...placed['messages-common'].map(({ name }) => `I${name}`)].filter(
        (name) => !local.has(name),
      );
      const imports = [
        file === 'messages-common' ? '' : importOf(names(enums.map(({ name }) => NAMES[name] ?? name)), 'enums'),
        file === 'messages-common' ? '' : importOf(names(common), 'messages-common'),
      ];
      return [`${file}.ts`, `${HEADS[file]}\n${imports.join('')}${TAILS[file]}\n${text}\n`];
    }),
  );
}

const importOf = (names, file) =>
  names.length === 0 ? '' : `import type { ${names.join(', ')} } from './${file}.js';\n`;

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
const TAILS = {
  messages: `
export type * from './messages-admin.js';
export type * from './messages-common.js';
`,
  'messages-admin': '',
  'messages-common': `/** A 64-bit number in a request: a decimal string, a number up to 2^53 - 1 or a bigint. Anything else is refused. */
export type Int64 = string | number | bigint;
`,
};

function interfaceOf({ name, fields }, isAnswer, enumNames, said) {
  const head = `${doc(name, said)}export interface I${name} {`;
  if (fields.length === 0) {
    return `// biome-ignore lint/suspicious/noEmptyInterface: a message without fields\n${head}}`;
  }
  const lines = fields.map((field) => {
    const newer = isAnswer && later(field.since, OF_ETCD3);
    const optional = newer || !isAnswer;
    const type = typeOf(field, isAnswer, enumNames);
    const missing = newer && type.startsWith('I') && !field.repeated ? ' | null' : '';
    return `${doc(`${name}.${field.name}`, said)}${field.name}${optional ? '?' : ''}: ${type}${missing};`;
  });
  const oneofs = isAnswer ? [...new Set(fields.map(({ oneof }) => oneof).filter(Boolean))] : [];
  for (const oneof of oneofs) {
    const members = fields.filter((field) => field.oneof === oneof).map((field) => `'${field.name}'`);
    lines.push(`${doc(`${name}.${oneof}`, said)}${oneof}?: ${members.join(' | ')};`);
  }
  return `${head}\n${lines.join('\n')}\n}`;
}

function typeOf({ kind, repeated }, isAnswer, enumNames) {
  const name = NAMES[kind] ?? kind;
  let type = SCALARS[kind]?.[isAnswer ? 'answer' : 'request'] ?? `I${kind}`;
  if (enumNames.has(kind)) type = isAnswer ? `keyof typeof ${name}` : `${name} | keyof typeof ${name}`;
  if (!repeated) return type;
  return type.includes(' ') ? `(${type})[]` : `${type}[]`;
}

function later(version, than) {
  const [major, minor] = (version || '0.0').split('.').map(Number);
  const [thanMajor, thanMinor] = than.split('.').map(Number);
  return major > thanMajor || (major === thanMajor && minor > thanMinor);
}

/** The doc comment of a name, at the width of the code around it. */
function doc(name, said) {
  const text = PROSE[name];
  if (text === undefined) return '';
  said.add(name);
  const indent = name.includes('.') ? 2 : 0;
  if (indent + text.length + '/**  */'.length <= 120) return `/** ${text} */\n`;
  const lines = [''];
  for (const word of text.split(' ')) {
    if (indent + ' * '.length + lines.at(-1).length + 1 + word.length > 120) lines.push('');
    lines[lines.length - 1] += lines.at(-1) === '' ? word : ` ${word}`;
  }
  return `/**\n${lines.map((line) => ` * ${line}`).join('\n')}\n */\n`;
}
