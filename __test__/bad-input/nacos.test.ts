// What can't be right of Nacos: typed errors that name the argument, before anything is sent, and nothing left behind.
import type { NacosOptions, Registry } from 'rollcall';
import { connect } from 'rollcall';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { refused } from '../conformance/kit.js';
import { type NacosStub, startNacosStub } from '../support/nacos-stub.js';

let nacos: NacosStub;
let registry: Registry;

beforeAll(async () => {
  nacos = await startNacosStub();
  registry = await connect(options());
});

afterAll(async () => {
  await registry?.close();
  await nacos?.close();
});

const options = (more: Record<string, unknown> = {}): NacosOptions => ({
  ...{ backend: 'nacos', hosts: nacos.host, grpcPort: nacos.port, logger: false },
  ...more,
});

describe('options', () => {
  test.each([
    [{ namespace: 'a b' }, 'options.namespace'],
    [{ namespace: '' }, 'options.namespace'],
    [{ group: 'a/b' }, 'options.group'],
    [{ group: 'g'.repeat(129) }, 'options.group'],
    [{ cluster: 'a.b' }, 'options.cluster'],
    [{ weight: 0 }, 'options.weight'],
    [{ weight: 10_001 }, 'options.weight'],
    [{ weight: Number.NaN }, 'options.weight'],
    [{ weight: '1' }, 'options.weight'],
    [{ grpcPort: 0 }, 'options.grpcPort'],
    [{ grpcPort: 65_536 }, 'options.grpcPort'],
    [{ grpcPort: undefined, hosts: 'h:65000' }, 'options.hosts'],
    [{ hosts: [] }, 'options.hosts'],
    [{ contextPath: 'nacos' }, 'options.contextPath'],
    [{ codec: 'java' }, 'options.codec'],
    [{ username: 'u' }, 'options.password'],
    [{ password: 'p' }, 'options.username'],
    [{ accessKey: 'k' }, 'options.secretKey'],
    [{ secretKey: 's' }, 'options.accessKey'],
    [{ regionId: 'r' }, 'options.accessKey'],
    [{ username: 'u', password: 'p', accessKey: 'k', secretKey: 's' }, 'options.accessKey'],
  ])('%j', async (more, path) => {
    const error = await refused(connect(options(more)), 'ERR_INVALID_ARGUMENT');
    expect(error.message.startsWith(`${path}:`), error.message).toBe(true);
  });

  test.each([
    ['nacos://h/path', /contextPath/],
    ['nacos://user@h', /options\.password/],
    ['nacos://h?group=a%2Fb', /^options\.group/],
    ['nacos://h?unknown=1', /unknown/],
  ])('%s', async (url, message) => {
    await refused(connect(url), 'ERR_INVALID_ARGUMENT', message);
  });
});

describe('instances', () => {
  const instance = { name: 'orders', id: 'a', endpoints: ['grpc://10.1.2.3:9000'] };

  test.each([
    [{ name: '@orders' }, 'instance.name'],
    [{ name: 'orders@' }, 'instance.name'],
    [{ name: 'a@@orders' }, 'instance.name'],
    [{ name: 'my orders' }, 'instance.name'],
    [{ name: '订单' }, 'instance.name'],
    [{ name: 'o'.repeat(507) }, 'instance.name'],
    [{ metadata: { kind: 'x' } }, 'instance.metadata'],
    [{ metadata: { version: 'x' } }, 'instance.metadata'],
    [{ metadata: { 'rollcall.id': 'x' } }, 'instance.metadata'],
    [{ metadata: { k: 'v'.repeat(1024) } }, 'instance.metadata'],
    [{ id: 'i'.repeat(1024) }, 'instance.id'],
    [{ version: 'v'.repeat(1024) }, 'instance.version'],
    [{ endpoints: ['grpc://10.1.2.3:9000', 'grpc://10.1.2.3:9000/two'] }, 'instance.endpoints[1]'],
    [{ endpoints: [`grpc://${'h'.repeat(129)}:9000`] }, 'instance.endpoints[0]'],
    [{ endpoints: [`grpc://10.1.2.3:9000/${'p'.repeat(1024)}`] }, 'instance.endpoints[0]'],
  ])('%j', async (more, path) => {
    const asked = await nacos.count('BatchInstanceRequest');
    const error = await refused(registry.register({ ...instance, ...more }), 'ERR_INVALID_ARGUMENT');
    expect(error.message.startsWith(path), error.message).toBe(true);
    expect(await nacos.count('BatchInstanceRequest')).toBe(asked);
  });

  test('a refused update leaves what stood', async () => {
    const registration = await registry.register({ ...instance, name: 'kept' });
    await refused(registration.update({ metadata: { k: 'v'.repeat(1024) } }), 'ERR_INVALID_ARGUMENT');
    expect(await nacos.list('public', 'kept.grpc')).toHaveLength(1);
    await registration.deregister();
    expect(await nacos.list('public', 'kept.grpc')).toEqual([]);
  });

  test('a namespace that the server does not have', async () => {
    await nacos.fail('ServiceListRequest', [22_001]);
    await refused(connect(options({ namespace: 'nowhere' })), 'ERR_INVALID_ARGUMENT', /options\.namespace/);
  });
});
