import { createRequire } from 'node:module';
import { describe, expect, it } from 'vitest';
import { InvalidArgumentError } from '../../lib/errors.js';
import { GRPCInternalError } from '../../lib/etcd/errors.js';
import { decode, encode } from '../../lib/etcd/rpc/codec.js';
import { ENUMS, type FieldRow, MESSAGES, type MessageName } from '../../lib/etcd/rpc/schema.js';
import { Writer } from '../../lib/etcd/rpc/wire.js';
import { inTime } from '../support/process.js';
import { seeded } from '../support/random.js';

type Bag = Record<string, unknown>;

/** A message type of protobufjs, as far as it is used here. */
interface TheirType {
  fromObject(value: Bag): unknown;
  encode(message: unknown): { finish(): Uint8Array };
  decode(bytes: Uint8Array): unknown;
  toObject(message: unknown, options: Bag): Bag;
  fields: Record<string, { id: number; type: string; repeated: boolean }>;
}

const require = createRequire(import.meta.url);
const protobuf = require('protobufjs') as {
  Root: new () => {
    resolvePath: unknown;
    loadSync(file: string, options: Bag): { lookupType(name: string): TheirType };
  };
};
const folder = require.resolve('etcd3/package.json').replace(/package\.json$/, 'proto/');
const root = new protobuf.Root();
root.resolvePath = (_origin: string, target: string) => folder + target.replace(/^.*\//, '');
const protocol = root.loadSync('rpc.proto', { keepCase: true });
/** The options that etcd3 reads with. */
const AS_ETCD3 = { longs: String, enums: String, defaults: true, oneofs: true, arrays: false, objects: false };

/** What etcd 3.5 and later have and the protocol of etcd3 has not. */
const NEWER: Readonly<Record<string, readonly string[]>> = {
  HashKVResponse: ['hash_revision'],
  SnapshotResponse: ['version'],
  StatusResponse: ['storageVersion', 'dbSizeQuota', 'downgradeInfo'],
  AuthUserAddRequest: ['hashedPassword'],
  AuthUserChangePasswordRequest: ['hashedPassword'],
};
const names = (Object.keys(MESSAGES) as MessageName[]).filter(
  (name) => !['DowngradeInfo', 'RangeStreamResponse'].includes(name),
);

function theirs(name: MessageName): TheirType {
  const scope = ['KeyValue', 'Event'].includes(name)
    ? 'mvccpb'
    : ['UserAddOptions', 'User', 'Permission', 'Role'].includes(name)
      ? 'authpb'
      : 'etcdserverpb';
  return protocol.lookupType(`${scope}.${name}`);
}

const read = (name: MessageName, bytes: Uint8Array) =>
  theirs(name).toObject(theirs(name).decode(Buffer.from(bytes)), AS_ETCD3);

type Random = () => number;
const pick = <T>(random: Random, of: readonly T[]): T => of[Math.floor(random() * of.length)] as T;

const INT64 = [
  '0',
  '1',
  '-1',
  '127',
  '128',
  '16383',
  '268435455',
  '268435456',
  '4294967295',
  '4294967296',
  '-4294967297',
];
const BIG = ['9007199254740991', '9007199254740992', '9007199254740993', '9223372036854775807', '-9223372036854775808'];
const UINT64 = ['0', '1', '300', '4294967296', '9007199254740993', '14841639068965178418', '18446744073709551615'];

function scalar(random: Random, kind: string, depth: number): unknown {
  switch (kind) {
    case 'bytes':
      return Buffer.from(Array.from({ length: pick(random, [0, 1, 5, 200]) }, () => Math.floor(random() * 256)));
    case 'string':
      return pick(random, ['', 'a', 'schlüssel', '鍵🔑', 'x'.repeat(300)]);
    case 'bool':
      return random() < 0.5;
    case 'int64':
      return pick(random, [...INT64, ...BIG]);
    case 'uint64':
      return pick(random, UINT64);
    case 'uint32':
      return pick(random, [0, 1, 4_294_967_295]);
    default: {
      if (!Object.hasOwn(ENUMS, kind)) return sample(random, kind as MessageName, depth + 1);
      const members = ENUMS[kind as keyof typeof ENUMS] as unknown as Record<string, unknown>;
      return pick(random, [...Object.keys(members).filter((name) => typeof members[name] === 'number'), 77]);
    }
  }
}

/** A message with some of its fields. */
function sample(random: Random, name: MessageName, depth = 0): Bag {
  const message: Bag = {};
  let oneof = '';
  for (const [, field, kind, more] of MESSAGES[name] as readonly FieldRow[]) {
    if (NEWER[name]?.includes(field) || random() < 0.3 || (depth > 4 && !/^[a-z]/.test(kind))) continue;
    if (more === '[]') {
      message[field] = Array.from({ length: pick(random, [0, 1, 3]) }, () => scalar(random, kind, depth));
    } else if (more === undefined || oneof !== more) {
      oneof = more ?? oneof;
      message[field] = scalar(random, kind, depth);
    }
  }
  return message;
}

/** What we decode, without the fields that their protocol lacks. */
function shared(name: string, message: unknown): unknown {
  const kinds = Object.hasOwn(MESSAGES, name) ? (MESSAGES[name as MessageName] as readonly FieldRow[]) : [];
  const result = { ...(message as Bag) };
  for (const field of NEWER[name] ?? []) {
    expect(result).toHaveProperty(field);
    delete result[field];
  }
  for (const [, field, kind, more] of kinds) {
    if (!Object.hasOwn(MESSAGES, kind) || result[field] === null || result[field] === undefined) continue;
    result[field] =
      more === '[]' ? (result[field] as unknown[]).map((item) => shared(kind, item)) : shared(kind, result[field]);
  }
  return result;
}

describe('against protobufjs, set up as in etcd3', () => {
  it.each(names)('%s has the same fields', (name) => {
    const rows = (MESSAGES[name] as readonly FieldRow[]).filter(([, field]) => !NEWER[name]?.includes(field));
    const ours = rows.map(([id, field, , more]) => ({ id, field, repeated: more === '[]' }));
    const fields = Object.entries(theirs(name).fields).map(([field, { id, repeated }]) => ({ id, field, repeated }));
    expect(ours).toEqual(fields.sort((a, b) => a.id - b.id));
  });

  it.each(names)('%s goes both ways, and reads the same', (name) => {
    const random = seeded(name.length * 7919 + name.charCodeAt(0));
    const type = theirs(name);
    for (let round = 0; round < 60; round++) {
      const message = sample(random, name);
      const ourBytes = encode(name, message);
      const theirBytes = type.encode(type.fromObject(message)).finish();
      const expected = read(name, theirBytes);
      expect(read(name, ourBytes)).toEqual(expected);
      expect(shared(name, decode(name, ourBytes))).toStrictEqual(expected);
      expect(shared(name, decode(name, theirBytes))).toStrictEqual(expected);
      expect(encode(name, decode(name, ourBytes))).toHaveProperty('length'); // an answer can be written again
    }
  });

  it('an empty answer has every field, as etcd3 gives it', () => {
    for (const name of names) {
      const empty = decode(name, new Uint8Array());
      expect(shared(name, empty)).toStrictEqual(read(name, new Uint8Array()));
      expect(Object.getPrototypeOf(empty)).toBe(Object.prototype);
    }
    expect(decode('RangeResponse', new Uint8Array())).toStrictEqual({ header: null, kvs: [], more: false, count: '0' });
    const first = decode('RangeResponse', new Uint8Array()) as { kvs: unknown[] };
    expect(first.kvs).not.toBe((decode('RangeResponse', new Uint8Array()) as { kvs: unknown[] }).kvs);
  });

  it('names the member of a oneof that is set, and only has that one', () => {
    const [operation] = (
      decode('TxnResponse', encode('TxnResponse', { responses: [{ response_put: {} }] })) as { responses: Bag[] }
    ).responses;
    expect(operation).toStrictEqual({ response_put: { header: null, prev_kv: null }, response: 'response_put' });
    const both = Buffer.concat([
      encode('ResponseOp', { response_range: {} }),
      encode('ResponseOp', { response_put: {} }),
    ]);
    expect(Object.keys(decode('ResponseOp', both)).sort()).toEqual(['response', 'response_put']); // the last one holds
  });
});

describe('numbers', () => {
  const of = (value: unknown) => (decode('LeaseRevokeRequest', encode('LeaseRevokeRequest', { ID: value })) as Bag).ID;

  it('of 64 bits stay exact, as string, number and bigint', () => {
    for (const text of [...INT64, ...BIG]) {
      expect(of(text)).toBe(text);
      expect(of(BigInt(text))).toBe(text);
      if (Number.isSafeInteger(Number(text))) expect(of(Number(text))).toBe(text);
    }
    const id = (value: unknown) =>
      (decode('MemberRemoveRequest', encode('MemberRemoveRequest', { ID: value })) as Bag).ID;
    for (const text of UINT64) expect(id(BigInt(text))).toBe(text);
    // Twice, with others in between: large ones are kept at hand.
    const random = seeded(3);
    for (let round = 0; round < 2000; round++) {
      const value = BigInt.asIntN(64, BigInt(Math.floor(random() * 2 ** 32)) << BigInt(Math.floor(random() * 33)));
      expect(of(value)).toBe(String(value));
    }
  });

  it.each([
    [2 ** 53, 'expected a whole number up to 2^53 - 1, got 9007199254740992; pass larger ones as a string or a bigint'],
    [1.5, 'expected a whole number up to 2^53 - 1, got 1.5'],
    [Number.NaN, 'expected a whole number up to 2^53 - 1, got NaN'],
    ['secret', 'expected decimal digits, got another string'],
    ['', 'expected decimal digits, got another string'],
    ['-', 'expected decimal digits, got another string'],
    ['+1', 'expected decimal digits, got another string'],
    [' 1', 'expected decimal digits, got another string'],
    ['0x10', 'expected decimal digits, got another string'],
    ['1e3', 'expected decimal digits, got another string'],
    ['9223372036854775808', 'expected a number from -2^63 to 2^63 - 1, got 9223372036854775808'],
    [2n ** 63n, 'expected a number from -2^63 to 2^63 - 1, got 9223372036854775808'],
    [true, 'expected a string of digits, a number or a bigint, got boolean'],
    [[1], 'expected a string of digits, a number or a bigint, got array'],
  ])('%s is refused as int64', (value, problem) => {
    const error = failure(() => encode('LeaseRevokeRequest', { ID: value }));
    expect(error).toBeInstanceOf(InvalidArgumentError);
    expect(error.message).toBe(`LeaseRevokeRequest.ID: ${problem}`);
  });

  it('below 0 or above 64 bits are refused where there are none', () => {
    for (const value of [-1, '-1', -1n, 2n ** 64n, '18446744073709551616']) {
      expect(() => encode('MemberRemoveRequest', { ID: value })).toThrow(
        'MemberRemoveRequest.ID: expected a number from 0',
      );
    }
  });
});

function failure(run: () => unknown): Error {
  try {
    run();
  } catch (error) {
    return error as Error;
  }
  throw new Error('nothing was thrown');
}

describe('a wrong request', () => {
  it.each([
    ['PutRequest', { key: 5 }, 'PutRequest.key: expected a Buffer, a Uint8Array or a string, got 5'],
    ['PutRequest', { value: { a: 1 } }, 'PutRequest.value: expected a Buffer, a Uint8Array or a string, got object'],
    [
      'PutRequest',
      { key: new Float64Array(1) },
      'PutRequest.key: expected a Buffer, a Uint8Array or a string, got Buffer',
    ],
    ['PutRequest', { prev_kv: 1 }, 'PutRequest.prev_kv: expected true or false, got 1'],
    ['PutRequest', null, 'PutRequest: expected an object, got null'],
    ['PutRequest', 'key', 'PutRequest: expected an object, got string'],
    [
      'RangeRequest',
      { sort_order: 'Up' },
      'RangeRequest.sort_order: expected "None", "Ascend", "Descend" or a number, got another string',
    ],
    [
      'RangeRequest',
      { sort_order: '1' },
      'RangeRequest.sort_order: expected "None", "Ascend", "Descend" or a number, got another string',
    ],
    [
      'RangeRequest',
      { sort_order: 1.5 },
      'RangeRequest.sort_order: expected "None", "Ascend", "Descend" or a number, got 1.5',
    ],
    ['AuthenticateRequest', { password: 5 }, 'AuthenticateRequest.password: expected a string, got number'],
    ['MemberAddRequest', { peerURLs: 'http://a' }, 'MemberAddRequest.peerURLs: expected an array, got string'],
    ['MemberAddRequest', { peerURLs: ['http://a', null] }, 'MemberAddRequest.peerURLs[1]: expected a string, got null'],
    [
      'WatchRequest',
      { create_request: { filters: ['Noput', 'Nothing'] } },
      'WatchRequest.create_request.filters[1]: expected "Noput", "Nodelete" or a number, got another string',
    ],
    [
      'TxnRequest',
      { success: [{}, { request_put: { lease: 'x' } }] },
      'TxnRequest.success[1].request_put.lease: expected decimal digits, got another string',
    ],
    [
      'TxnRequest',
      { success: [{ request_put: {}, request_range: {} }] },
      'TxnRequest.success[0]: expected one of request, got request_range and request_put',
    ],
  ] as const)('%s %j', (name, value, message) => {
    const error = failure(() => encode(name, value));
    expect(error).toBeInstanceOf(InvalidArgumentError);
    expect(error).toMatchObject({ message, code: 'ERR_INVALID_ARGUMENT' });
    expect(encode('PutRequest', { key: 'a' })).toEqual(Buffer.from([10, 1, 97])); // nothing of it is left behind
  });

  it('that contains itself ends', () => {
    const endless: { success: unknown[] } = { success: [] };
    endless.success.push({ request_txn: endless });
    expect(() => encode('TxnRequest', endless)).toThrow(/\[0\]\.request_txn.*: nested more than 64 messages deep$/);
  });

  it('with a getter that throws, or that encodes, does no harm', () => {
    const thrown = new Error('mine');
    const bad = {
      get key(): never {
        throw thrown;
      },
    };
    expect(failure(() => encode('PutRequest', bad))).toBe(thrown);
    const nested = {
      get value() {
        return encode('PutRequest', { key: 'inner' });
      },
      key: 'outer',
    };
    expect(decode('PutRequest', encode('PutRequest', nested))).toMatchObject({
      key: Buffer.from('outer'),
      value: Buffer.from(encode('PutRequest', { key: 'inner' })),
    });
  });
});

describe('bytes', () => {
  it('are taken as Buffer, as Uint8Array, also a part of one, and as text in UTF-8', () => {
    const of = (key: unknown) => (decode('PutRequest', encode('PutRequest', { key })) as Bag).key;
    expect(of(Buffer.from('é'))).toEqual(Buffer.from('é'));
    expect(of(new Uint8Array([1, 2, 3]).subarray(1))).toEqual(Buffer.from([2, 3]));
    expect(of('é')).toEqual(Buffer.from('é'));
    expect(Buffer.isBuffer(of('é'))).toBe(true);
    expect(of('')).toEqual(Buffer.alloc(0));
  });

  it('of any size are written whole', () => {
    for (const size of [0, 127, 128, 4095, 4096, 16_383, 16_384, 2_100_000]) {
      const value = Buffer.alloc(size, size % 251);
      const txn = { success: [{ request_put: { key: 'k', value } }] };
      const back = decode('TxnRequest', encode('TxnRequest', txn)) as { success: { request_put: { value: Buffer } }[] };
      expect(back.success[0]?.request_put.value.equals(value)).toBe(true);
    }
  });
});

describe('hostile bytes', () => {
  const refused = (name: MessageName, bytes: Uint8Array) => {
    const error = failure(() => decode(name, bytes));
    expect(error).toBeInstanceOf(GRPCInternalError);
    return error.message;
  };

  it.each([
    ['a length beyond the end', [10, 5, 1], 'cut short'],
    ['a length of 4 GiB', [10, 0xff, 0xff, 0xff, 0xff, 0x0f], 'cut short'],
    ['a number without an end', [32, 0x80], 'cut short'],
    ['a number of 11 bytes', [32, ...Array(10).fill(0xff), 1], 'a number of more than 64 bits'],
    ['a tag without an end', [...Array(11).fill(0xff)], 'a number of more than 64 bits'],
    ['field number 0', [0, 0], 'field number 0'],
    ['a group', [0x1b, 0x1c], 'wire type 3'],
    ['an unknown field cut short', [0x79, 1], 'cut short'],
    ['a nested message longer than what holds it', [10, 2, 10, 40], 'cut short'],
  ])('%s', (_name, bytes, problem) => {
    expect(refused('RangeResponse', Uint8Array.from(bytes))).toBe(
      `13 INTERNAL: Response message parsing error: RangeResponse: ${problem}`,
    );
  });

  it('transactions nested without end are refused', () => {
    let bytes = Buffer.alloc(0);
    const wrap = (tag: number, inner: Buffer) => {
      const writer = new Writer();
      writer.uint32(tag);
      writer.bytes(inner);
      return Buffer.from(writer.finish());
    };
    for (let level = 0; level < 5000; level++) bytes = wrap(0x1a, wrap(0x22, bytes));
    expect(refused('TxnResponse', bytes)).toContain('nested more than 64 messages deep');
  });

  it('unknown fields, and known ones of another type, are passed over', () => {
    const known = encode('PutResponse', { header: { revision: 7 } });
    const unknown = [0x78, 0x96, 1, 0x7a, 2, 1, 2, 0x7d, 1, 2, 3, 4, 0x79, 1, 2, 3, 4, 5, 6, 7, 8, 0x10, 5];
    expect(decode('PutResponse', Buffer.concat([Buffer.from(unknown), known]))).toStrictEqual(
      decode('PutResponse', known),
    );
  });

  it('an unknown member of an enum stays a number; numbers may come packed or not', () => {
    expect(decode('Event', Uint8Array.from([8, 5]))).toMatchObject({ type: 5 });
    expect(decode('WatchCreateRequest', Uint8Array.from([40, 0, 40, 1, 42, 2, 1, 9]))).toMatchObject({
      filters: ['Noput', 'Nodelete', 'Nodelete', 9],
    });
  });

  it('whatever is done to good bytes: an object or the typed error, at once', () => {
    const random = seeded(20_240_607);
    const targets: MessageName[] = ['RangeResponse', 'WatchResponse', 'TxnResponse', 'TxnRequest', 'StatusResponse'];
    let refusals = 0;
    const started = performance.now();
    for (let round = 0; round < 20_000; round++) {
      const name = pick(random, targets);
      let bytes = Buffer.from(encode(name, sample(random, name, 2)));
      const change = random();
      if (change < 0.3) bytes = bytes.subarray(0, Math.floor(random() * bytes.length));
      else if (change < 0.8) {
        for (let times = 1 + random() * 4; times > 0 && bytes.length > 0; times--) {
          bytes[Math.floor(random() * bytes.length)] = Math.floor(random() * 256);
        }
      } else bytes = Buffer.from(Array.from({ length: random() * 60 }, () => Math.floor(random() * 256)));
      // In the midst of others, so that reading beyond the end would be seen as a difference.
      const around = Buffer.concat([Buffer.alloc(9, 0xff), bytes, Buffer.alloc(9, 0x01)]);
      const outcome = (run: () => object) => {
        try {
          return run();
        } catch (error) {
          expect(error).toBeInstanceOf(GRPCInternalError);
          return (error as Error).message;
        }
      };
      const alone = outcome(() => decode(name, bytes));
      expect(outcome(() => decode(name, around.subarray(9, 9 + bytes.length)))).toStrictEqual(alone);
      if (typeof alone === 'string') refusals++;
    }
    expect(refusals).toBeGreaterThan(1000);
    expect(refusals).toBeLessThan(19_000);
    expect(performance.now() - started).toBeLessThan(inTime(20_000));
  });
});
