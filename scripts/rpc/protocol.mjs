// Reads etcd's protocol from its own .proto files: those of the crate etcd-client, from which the Rust half is compiled.
// Cargo.lock pins them by checksum, and protoc, which the Rust build needs as well, understands them.

import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../..', import.meta.url));
const RPC = 'etcd/api/etcdserverpb/rpc.proto';
const DESCRIPTORS = 'google/protobuf/descriptor.proto';
/** Where etcd says in which of its versions a thing came. */
const VERSIONS = 'etcd/api/versionpb/version.proto';

/**
 * Everything that the services speak, in the order of the files:
 *
 * - `source`: in words, which versions of etcd and of the crate it is of
 * - `enums`: `name`, and `members` with `name` and `number`
 * - `messages`: `name`, and `fields` with `number`, `name`, `kind` (a scalar, an enum or a message), `repeated`, the name of
 *   their `oneof` and the version of etcd that they came with (`since`), empty for none
 * - `services`: `name`, and `methods` with `name`, `request`, `response` and `kind`
 */
export function readProtocol() {
  const crate = crateOf('etcd-client');
  const files = descriptorsIn(join(crate.folder, 'proto'));
  const messages = [];
  const enums = [];
  const services = [];
  for (const file of files) {
    if (!['authpb', 'mvccpb', 'etcdserverpb'].includes(only(file.package))) continue;
    for (const type of file.enum_type ?? []) enums.push(enumOf(type));
    for (const type of file.message_type ?? []) {
      for (const inner of type.enum_type ?? []) enums.push(enumOf(inner, only(type.name)));
      messages.push(messageOf(type));
    }
    for (const service of file.service ?? []) services.push(serviceOf(service));
  }
  const known = new Set([...messages, ...enums].map(({ name }) => name));
  if (known.size !== messages.length + enums.length) throw new Error('two types have one name: they need others here');
  return { source: `etcd ${newest(files)}, in the crate etcd-client ${crate.version}`, enums, messages, services };
}

function crateOf(name) {
  const { packages } = JSON.parse(run('cargo', ['metadata', '--format-version', '1', '--locked']));
  const found = packages.find((crate) => crate.name === name);
  if (!found) throw new Error(`Cargo.lock has no ${name}`);
  return { version: found.version, folder: dirname(found.manifest_path) };
}

/** The files that the services need, as protoc describes them. */
function descriptorsIn(folder) {
  const protoc = process.env.PROTOC || 'protoc';
  const paths = [`-I${folder}`, ...(process.env.PROTOC_INCLUDE ? [`-I${process.env.PROTOC_INCLUDE}`] : [])];
  const work = mkdtempSync(join(tmpdir(), 'rollcall-rpc-'));
  try {
    const set = join(work, 'set');
    run(protoc, [...paths, '--include_imports', `--descriptor_set_out=${set}`, RPC]);
    const decode = [...paths, '--decode=google.protobuf.FileDescriptorSet', DESCRIPTORS, VERSIONS];
    return parse(run(protoc, decode, readFileSync(set))).file;
  } finally {
    rmSync(work, { recursive: true });
  }
}

function run(command, args, input) {
  const done = spawnSync(command, args, { cwd: root, input, encoding: 'utf8', maxBuffer: 1 << 28 });
  if (done.error) throw done.error;
  if (done.status !== 0) throw new Error(`${command} ${args.join(' ')}: ${done.stderr}`);
  return done.stdout;
}

/** Protobuf's text format, as protoc prints it: `name: value`, or `name {` to `}`. Every name may come several times. */
function parse(text) {
  const open = [{}];
  for (const line of text.split('\n')) {
    const [, name, value] = /^\s*([^\s:]+)(?:: (.*)| \{)$/.exec(line) ?? [];
    if (name === undefined) {
      if (line.trim() === '}') open.pop();
      else if (line.trim() !== '') throw new Error(`protoc prints what is not understood: ${line}`);
      continue;
    }
    const item = value === undefined ? {} : value.replace(/^"(.*)"$/, '$1');
    const inside = open.at(-1);
    inside[name] ??= [];
    inside[name].push(item);
    if (value === undefined) open.push(item);
  }
  return open[0];
}

const only = (list) => list?.[0] ?? '';
/** The last part of a name: `.mvccpb.Event.EventType` is EventType. One that is just `Type` takes that of its message. */
const shortOf = (path) => path.replace(/^.*\.(\w+)\.Type$/, '$1Type').replace(/^.*\./, '');

function enumOf({ name, value }, outer = '') {
  const members = value.map((member) => ({ name: only(member.name), number: Number(only(member.number)) }));
  return { name: shortOf(`.${outer}.${only(name)}`), members };
}

function messageOf({ name, field = [], oneof_decl: oneofs = [], nested_type: nested }) {
  if (nested) throw new Error(`${only(name)} has messages inside: the generator knows no such thing`);
  const fields = field.map((one) => ({
    number: Number(only(one.number)),
    name: only(one.name),
    kind: one.type_name ? shortOf(only(one.type_name)) : only(one.type).replace('TYPE_', '').toLowerCase(),
    repeated: only(one.label) === 'LABEL_REPEATED',
    oneof: one.oneof_index && !one.proto3_optional ? only(oneofs[Number(only(one.oneof_index))].name) : '',
    since: only(only(one.options)['[versionpb.etcd_version_field]']),
  }));
  return { name: only(name), fields: fields.sort((a, b) => a.number - b.number) };
}

function serviceOf({ name, method }) {
  const methods = method.map((one) => ({
    name: only(one.name),
    request: shortOf(only(one.input_type)),
    response: shortOf(only(one.output_type)),
    kind: one.client_streaming ? 'both' : one.server_streaming ? 'answers' : 'unary',
  }));
  return { name: only(name), methods };
}

/** The newest version of etcd that a field, a message or an enum names. */
function newest(files) {
  const versions = [...JSON.stringify(files).matchAll(/versionpb\.etcd_version_\w+\]":\["(\d+)\.(\d+)"/g)];
  const [[, major, minor]] = versions.sort((a, b) => b[1] - a[1] || b[2] - a[2]);
  return `${major}.${minor}`;
}
