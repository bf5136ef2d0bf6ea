// A client of one of the contenders that run in Node.

/** What the programs of the contenders are started with: `etcd3|rollcall|grouped|beside HOST MODULE`. */
export async function connect([who, host, module]) {
  const { Etcd3 } = await import(module);
  // 50,000 keys are more than the 4 MiB that grpc-js takes at most by default.
  const options = { hosts: `http://${host}`, grpcOptions: { 'grpc.max_receive_message_length': 256 * 2 ** 20 } };
  return new Etcd3(who === 'etcd3' ? options : { ...options, groupGets: who === 'grouped' });
}
