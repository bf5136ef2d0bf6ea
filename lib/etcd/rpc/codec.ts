/**
 * Messages to bytes and back, by the table of `schema.ts`. What a message needs is worked out at its first use.
 *
 * Objects are what etcd3 takes and gives; `messages.ts` says how they look.
 */

import { kindOf, shown } from '../../common/shape.js';
import { InvalidArgumentError } from '../../errors.js';
import { GRPCInternalError } from '../errors.js';
import { ENUMS, type FieldRow, MESSAGES, type MessageName } from './schema.js';
import { Reader, Unreadable, Unwritable, Writer } from './wire.js';

/** How deep messages may nest; transactions can hold transactions. */
export const MAX_DEPTH = 64;

type Bag = Record<string, unknown>;

enum Kind {
  Bytes,
  Text,
  Bool,
  Int64,
  Uint64,
  Uint32,
  Enum,
  Message,
}

const SCALARS: Readonly<Record<string, Kind>> = {
  bytes: Kind.Bytes,
  string: Kind.Text,
  bool: Kind.Bool,
  int64: Kind.Int64,
  uint64: Kind.Uint64,
  uint32: Kind.Uint32,
};

const NOTHING: Buffer = Buffer.alloc(0);

/** The value of an absent field; a repeated one is an array of its own, an enum the name of its first member. */
const ABSENT: readonly unknown[] = [NOTHING, '', false, '0', '0', 0, undefined, null];

/** A field, ready for use. */
interface Field {
  readonly name: string;
  readonly kind: Kind;
  readonly repeated: boolean;
  /** The name of its oneof; empty for none. */
  readonly oneof: string;
  /** Of an enum: number by name, and name by number. */
  readonly members: Readonly<Record<string, unknown>>;
  /** Of a message. */
  readonly message: MessageName | undefined;
  /** Of a message, once it was needed. */
  plan: Plan | undefined;
  /** On the wire, number and type in one. */
  readonly tag: number;
}

/** A message, ready for use. */
interface Plan {
  readonly fields: readonly Field[];
  /** By tag, with gaps; no field has a number above 64. A repeated number or enum is there twice: packed as well. */
  readonly byTag: readonly (Field | undefined)[];
  /** The object of an answer without fields, to be copied. */
  readonly empty: Bag;
  /** The repeated ones, which need an array of their own each time. */
  readonly lists: readonly string[];
  /** What reads the message instead of the loop over `byTag`. */
  readonly quick: ((reader: Reader) => Bag) | undefined;
}

const plans = new Map<MessageName, Plan>();

function planOf(type: MessageName): Plan {
  const known = plans.get(type);
  if (known) return known;
  const fields = (MESSAGES[type] as readonly FieldRow[]).map(fieldOf);
  const byTag: Field[] = [];
  const empty: Bag = {};
  for (const field of fields) {
    byTag[field.tag] = field;
    if (field.repeated && (field.tag & 7) === 2 && isNumber(field.kind)) byTag[field.tag & ~7] = field;
    if (field.repeated) empty[field.name] = undefined;
    else if (field.oneof === '') empty[field.name] = field.kind === Kind.Enum ? field.members[0] : ABSENT[field.kind];
  }
  const lists = fields.filter((field) => field.repeated).map((field) => field.name);
  const plan: Plan = { fields, byTag, empty, lists, quick: type === 'KeyValue' ? readKeyValue : undefined };
  plans.set(type, plan);
  return plan;
}

function fieldOf([number, name, type, more = '']: FieldRow): Field {
  const members = Object.hasOwn(ENUMS, type) ? ENUMS[type as keyof typeof ENUMS] : undefined;
  const kind = SCALARS[type] ?? (members ? Kind.Enum : Kind.Message);
  const repeated = more === '[]';
  const delimited = kind === Kind.Bytes || kind === Kind.Text || kind === Kind.Message || repeated;
  return {
    name,
    kind,
    repeated,
    oneof: repeated ? '' : more,
    members: members ?? {},
    message: kind === Kind.Message ? (type as MessageName) : undefined,
    plan: undefined,
    tag: ((number << 3) | (delimited ? 2 : 0)) >>> 0,
  };
}

function planOfField(field: Field): Plan {
  field.plan ??= planOf(field.message as MessageName);
  return field.plan;
}

function isNumber(kind: Kind): boolean {
  return kind !== Kind.Bytes && kind !== Kind.Text && kind !== Kind.Message;
}

let scratch: Writer | undefined = new Writer();

/**
 * The bytes of a message. Throws an `InvalidArgumentError` whose message begins with the path of the wrong field, such
 * as `TxnRequest.success[0].request_put.lease: …`. Fields that the message doesn't have are passed over.
 */
export function encode(type: MessageName, value: unknown): Uint8Array {
  // A getter of `value` that encodes something itself finds no writer, and makes its own.
  const writer = scratch ?? new Writer();
  scratch = undefined;
  try {
    write(writer, planOf(type), value, 0);
    return writer.finish();
  } catch (error) {
    if (error instanceof Misplaced) throw new InvalidArgumentError(`${type}${error.path}: ${error.message}`);
    throw error;
  } finally {
    writer.reset();
    scratch = writer;
  }
}

/** A wrong field, on its way up through the messages that it is in. */
class Misplaced extends Error {
  path = '';
}

function misplaced(error: unknown, path: string): unknown {
  if (error instanceof Misplaced) {
    error.path = path + error.path;
    return error;
  }
  if (!(error instanceof Unwritable)) return error; // thrown by a getter of the program
  const found = new Misplaced(error.message);
  found.path = path;
  return found;
}

function write(writer: Writer, plan: Plan, value: unknown, depth: number): void {
  if (typeof value !== 'object' || value === null || Array.isArray(value) || ArrayBuffer.isView(value)) {
    throw misplaced(new Unwritable(`expected an object, got ${shown(value)}`), '');
  }
  if (depth > MAX_DEPTH) throw misplaced(new Unwritable(`nested more than ${MAX_DEPTH} messages deep`), '');
  let chosen: Field | undefined;
  for (const field of plan.fields) {
    const given = (value as Bag)[field.name];
    if (given === undefined || given === null) continue;
    if (field.oneof !== '') {
      if (chosen) {
        const both = `expected one of ${field.oneof}, got ${chosen.name} and ${field.name}`;
        throw misplaced(new Unwritable(both), '');
      }
      chosen = field;
    }
    let index = -1;
    try {
      if (!field.repeated) {
        writer.uint32(field.tag);
        writeValue(writer, field, given, depth);
        continue;
      }
      if (!Array.isArray(given)) throw new Unwritable(`expected an array, got ${shown(given)}`);
      if (given.length === 0) continue;
      const packed = isNumber(field.kind);
      if (packed) writer.uint32(field.tag);
      const start = packed ? writer.open() : 0;
      for (index = 0; index < given.length; index++) {
        if (!packed) writer.uint32(field.tag);
        writeValue(writer, field, given[index], depth);
      }
      if (packed) writer.close(start);
    } catch (error) {
      throw misplaced(error, index < 0 ? `.${field.name}` : `.${field.name}[${index}]`);
    }
  }
}

function writeValue(writer: Writer, field: Field, value: unknown, depth: number): void {
  switch (field.kind) {
    case Kind.Bytes:
      writer.bytes(value);
      return;
    case Kind.Text:
      // Not shown: it may be a password.
      if (typeof value !== 'string') throw new Unwritable(`expected a string, got ${kindOf(value)}`);
      writer.text(value);
      return;
    case Kind.Bool:
      if (typeof value !== 'boolean') throw new Unwritable(`expected true or false, got ${shown(value)}`);
      writer.uint32(value ? 1 : 0);
      return;
    case Kind.Int64:
      writer.int64(value, true);
      return;
    case Kind.Uint64:
      writer.int64(value, false);
      return;
    case Kind.Uint32:
      if (typeof value !== 'number' || value >>> 0 !== value) {
        throw new Unwritable(`expected a whole number up to 2^32 - 1, got ${shown(value)}`);
      }
      writer.uint32(value);
      return;
    case Kind.Enum:
      writer.int32(memberOf(field, value));
      return;
    default: {
      const start = writer.open();
      write(writer, planOfField(field), value, depth + 1);
      writer.close(start);
    }
  }
}

/** The number of an enum's member. A number that no member has is for a newer server, and goes through. */
function memberOf(field: Field, value: unknown): number {
  if (typeof value === 'number' && (value | 0) === value) return value;
  if (typeof value === 'string' && Object.hasOwn(field.members, value)) {
    const number = field.members[value];
    if (typeof number === 'number') return number;
  }
  const names = Object.keys(field.members).filter((name) => typeof field.members[name] === 'number');
  throw new Unwritable(
    `expected ${names.map((name) => `"${name}"`).join(', ')} or a number, got ${unknownName(value)}`,
  );
}

function unknownName(value: unknown): string {
  return typeof value === 'string' ? 'another string' : shown(value);
}

/**
 * The message that bytes hold, with every field there. Throws a `GRPCInternalError`, as grpc does, when they hold none.
 *
 * Bytes fields are views of `bytes`, as in etcd3: most programs turn them into text at once, and copies would add a
 * third to the time of a range. Whoever keeps one small value of a large answer for long copies it, or the whole answer
 * stays in memory.
 */
export function decode(type: MessageName, bytes: Uint8Array): object {
  try {
    return read(new Reader(bytes), planOf(type), 0);
  } catch (error) {
    if (!(error instanceof Unreadable)) throw error;
    const details = `Response message parsing error: ${type}: ${error.message}`;
    throw new GRPCInternalError(`13 INTERNAL: ${details}`, { details });
  }
}

function read(reader: Reader, plan: Plan, depth: number): Bag {
  if (depth > MAX_DEPTH) throw new Unreadable(`nested more than ${MAX_DEPTH} messages deep`);
  if (plan.quick) return plan.quick(reader);
  const message: Bag = { ...plan.empty };
  for (const name of plan.lists) message[name] = [];
  const { end } = reader;
  while (reader.at < end) {
    const tag = reader.uint32();
    const field = plan.byTag[tag];
    if (field === undefined) {
      skip(reader, tag);
    } else if (!field.repeated) {
      message[field.name] = readValue(reader, field, depth);
      if (field.oneof !== '') settleOneof(message, field);
    } else if (tag === field.tag && isNumber(field.kind)) {
      const list = message[field.name] as unknown[];
      const limit = reader.limit();
      while (reader.at < limit) list.push(readValue(reader, field, depth));
      if (reader.at > limit) throw new Unreadable('cut short');
    } else {
      (message[field.name] as unknown[]).push(readValue(reader, field, depth));
    }
  }
  return message;
}

function skip(reader: Reader, tag: number): void {
  if (tag < 8) throw new Unreadable('field number 0');
  reader.skip(tag & 7);
}

/**
 * `KeyValue` is what ranges and watches consist of. Written out it takes a bit more than half the time: the object is
 * made once, with its values.
 */
function readKeyValue(reader: Reader): Bag {
  let key = NOTHING;
  let value = NOTHING;
  let created = '0';
  let modified = '0';
  let version = '0';
  let lease = '0';
  while (reader.at < reader.end) {
    const tag = reader.uint32();
    switch (tag) {
      case 10:
        key = reader.view();
        break;
      case 16:
        created = reader.int64(true);
        break;
      case 24:
        modified = reader.int64(true);
        break;
      case 32:
        version = reader.int64(true);
        break;
      case 42:
        value = reader.view();
        break;
      case 48:
        lease = reader.int64(true);
        break;
      default:
        skip(reader, tag);
    }
  }
  return { key, create_revision: created, mod_revision: modified, version, value, lease };
}

/** Names the member that is set, and takes those away that came before. */
function settleOneof(message: Bag, field: Field): void {
  const before = message[field.oneof];
  if (before !== undefined && before !== field.name) delete message[before as string];
  message[field.oneof] = field.name;
}

function readValue(reader: Reader, field: Field, depth: number): unknown {
  switch (field.kind) {
    case Kind.Bytes:
      return reader.view();
    case Kind.Text: {
      const limit = reader.limit();
      const value = reader.at === limit ? '' : reader.bytes.toString('utf8', reader.at, limit);
      reader.at = limit;
      return value;
    }
    case Kind.Bool:
      return reader.bool();
    case Kind.Int64:
      return reader.int64(true);
    case Kind.Uint64:
      return reader.int64(false);
    case Kind.Uint32:
      return reader.uint32();
    case Kind.Enum: {
      const number = reader.uint32() | 0;
      return field.members[number] ?? number;
    }
    default: {
      const { end } = reader;
      const limit = reader.limit();
      reader.end = limit;
      const value = read(reader, planOfField(field), depth + 1);
      reader.end = end;
      return value;
    }
  }
}
