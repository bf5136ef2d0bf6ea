// Instances as they look in production, and the record that stands for one in etcd.

const two = (n) => String(n).padStart(2, '0');

/** The n-th instance of a service. */
export function instanceOf(name, n, seq = 0) {
  return {
    id: `${name}-${String(n).padStart(4, '0')}`,
    name,
    version: `1.4.${seq}`,
    metadata: { zone: 'abc'[n % 3], weight: '100' },
    endpoints: [`grpc://10.1.${n >> 8}.${n & 255}:9000`, `http://10.1.${n >> 8}.${n & 255}:80${two(n % 100)}`],
  };
}

/** The key of an instance under a prefix. */
export const keyOf = (prefix, { name, id }) => `${prefix}/${name}/${id}`;

/** The JSON that Kratos writes. */
export const recordOf = ({ id, name, version, metadata, endpoints }) =>
  JSON.stringify({ id, name, version, metadata, endpoints });
