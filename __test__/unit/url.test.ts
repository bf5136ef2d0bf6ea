import { describe, expect, it } from 'vitest';
import { InvalidArgumentError } from '../../lib/errors.js';
import { BACKEND_NAMES, BACKENDS } from '../../lib/registry/backends/index.js';
import { settle } from '../../lib/registry/options.js';
import { parseUrl } from '../../lib/registry/url.js';

function refusal(url: string): string {
  try {
    parseUrl(url);
  } catch (error) {
    expect(error).toBeInstanceOf(InvalidArgumentError);
    return (error as Error).message;
  }
  throw new Error('not refused');
}

describe.each(BACKEND_NAMES)('the backend %s', (backend) => {
  it.each(BACKENDS[backend].urls)('is found by the scheme of %s', (url) => {
    const scheme = url.slice(0, url.indexOf(':'));
    expect(parseUrl(`${scheme}://`)).toMatchObject({ backend });
    expect(parseUrl(`${scheme.toUpperCase()}://?ttlMs=3000`)).toMatchObject({ backend, ttlMs: 3000 });
  });
});

describe('a URL stands for options', () => {
  it.each<[string, object]>([
    ['memory://', { backend: 'memory' }],
    ['memory://tests', { backend: 'memory', namespace: 'tests' }],
    ['memory://a%2Fb?ttlMs=3000', { backend: 'memory', namespace: 'a/b', ttlMs: 3000 }],
    ['etcd://', { backend: 'etcd' }],
    ['ETCD://a:1/', { backend: 'etcd', hosts: ['a:1'] }],
    ['etcd://a:1,b:2?prefix=/x&ttlMs=3000', { backend: 'etcd', hosts: ['a:1', 'b:2'], prefix: '/x', ttlMs: 3000 }],
    ['etcd://[::1]:2379', { backend: 'etcd', hosts: ['[::1]:2379'] }],
    [
      'consul://tok%2Fen@a:1,b?tags=x,y&weights.passing=3&healthCheck=false',
      {
        ...{ backend: 'consul', hosts: ['a:1', 'b'], token: 'tok/en' },
        ...{ tags: ['x', 'y'], weights: { passing: 3 }, healthCheck: 'false' },
      },
    ],
    ['zookeepers://a/b', { backend: 'zookeeper', hosts: ['a'], chroot: '/b', tls: true }],
    [
      'nacos://u:p%40@a:1,b?namespace=dev&grpcPort=9&weight=2.5&codec=plain',
      {
        ...{ backend: 'nacos', hosts: ['a:1', 'b'], username: 'u', password: 'p@' },
        ...{ namespace: 'dev', grpcPort: 9, weight: 2.5, codec: 'plain' },
      },
    ],
    ['kubernetes://', { backend: 'kubernetes' }],
    [
      'kubernetes://10.0.0.1:6443?namespace=shop&tokenFile=/t&caFile=/ca.pem',
      {
        ...{ backend: 'kubernetes', server: 'https://10.0.0.1:6443' },
        ...{ namespace: 'shop', tokenFile: '/t', caFile: '/ca.pem' },
      },
    ],
    [
      'kubernetes://?kubeconfig=/k&context=dev&namespace=*&source=pods&notReady=1&watchTimeoutMs=5000',
      {
        ...{ backend: 'kubernetes', kubeconfig: '/k', context: 'dev', namespace: '*' },
        ...{ source: 'pods', notReady: true, watchTimeoutMs: 5000 },
      },
    ],
    ['nacoss://a', { backend: 'nacos', hosts: ['a'], tls: true }],
    [
      'polaris://tok%2Fen%3D@a:1,b?namespace=dev&layout=registry&ttlMs=5000&weight=50',
      {
        ...{ backend: 'polaris', hosts: ['a:1', 'b'], token: 'tok/en=' },
        ...{ namespace: 'dev', layout: 'registry', ttlMs: 5000, weight: 50 },
      },
    ],
    ['polariss://a?token=t', { backend: 'polaris', hosts: ['a'], token: 't', tls: true }],
    ['consuls://:token@a', { backend: 'consul', hosts: ['a'], token: 'token', tls: true }],
    ['consul://?hosts=unix:///run/consul.sock', { backend: 'consul', hosts: ['unix:///run/consul.sock'] }],
    ['etcd://?hosts=a,b', { backend: 'etcd', hosts: ['a', 'b'] }],
    ['etcds://a', { backend: 'etcd', hosts: ['a'], tls: true }],
    ['etcds://a?tls=true', { backend: 'etcd', hosts: ['a'], tls: true }],
    ['etcds://a?tls.caFile=/a+b.pem', { backend: 'etcd', hosts: ['a'], tls: { caFile: '/a+b.pem' } }],
    [
      'etcd://a?tls.caFile=/x&tls=1&tls.serverName=y',
      { backend: 'etcd', hosts: ['a'], tls: { caFile: '/x', serverName: 'y' } },
    ],
    ['etcd://a?tls=false', { backend: 'etcd', hosts: ['a'], tls: false }],
    ['etcd://u:p@a', { backend: 'etcd', hosts: ['a'], username: 'u', password: 'p' }],
    ['etcd://u%40x:p%2F%3F%23%40%3A@a', { backend: 'etcd', hosts: ['a'], username: 'u@x', password: 'p/?#@:' }],
    ['etcd://u%2Cv:p%2Cq@a,b', { backend: 'etcd', hosts: ['a', 'b'], username: 'u,v', password: 'p,q' }],
    ['etcd://u:a:b@c@a:1', { backend: 'etcd', hosts: ['a:1'], username: 'u', password: 'a:b@c' }],
    ['etcd://a?username=u&password=p%26q', { backend: 'etcd', hosts: ['a'], username: 'u', password: 'p&q' }],
    [
      'memory://?lazy=0&logger=false&signals=SIGTERM,SIGINT',
      { backend: 'memory', lazy: false, logger: false, signals: ['SIGTERM', 'SIGINT'] },
    ],
  ])('%s', (url, options) => {
    expect(parseUrl(url)).toEqual(options);
  });

  it('is checked as the object is', async () => {
    await expect(settle(parseUrl('etcd://[fe80::1%25eth0]:2379'))).rejects.toThrow(
      'options.hosts[0]: expected an IPv6 address without a zone (from "%" on)',
    );
    await expect(settle(parseUrl('memory://?ttlMs=5'))).rejects.toThrow(
      'options.ttlMs: expected a whole number from 1000 to 2147483647, got 5',
    );
    await expect(settle(parseUrl('kubernetes://a?kubeconfig=/k'))).rejects.toThrow(
      'options.kubeconfig: expected without a server',
    );
    await expect(settle(parseUrl('kubernetes://a?source=endpoints'))).rejects.toThrow(/^options\.source: expected/);
    await expect(settle(parseUrl('etcd://a?codec=kratoz'))).rejects.toThrow(
      'options.codec: expected "kratos" or "metadata" or "json", got "kratoz"; did you mean "kratos"?',
    );
  });
});

describe('refuses, naming the path', () => {
  const forms = BACKEND_NAMES.flatMap((name) => BACKENDS[name].urls.map((url) => `"${url}"`))
    .join(', ')
    .replace(/, ("[^"]*")$/, ' or $1');
  const form = `options: expected a URL such as ${forms}`;
  const owners = (option: string) => BACKEND_NAMES.filter((name) => option in BACKENDS[name].options).join(' and ');
  it.each<[string, string]>([
    ['', form],
    ['localhost:2379', form],
    ['etdc://a', `${form}; did you mean "etcd"?`],
    ['http://a', form],
    ['etcd://a/services', 'options: expected no path after the host of the URL: write the prefix as "?prefix=/…"'],
    ['memory://a/b', 'options: expected no path after the host of the URL: a namespace has no "/"'],
    ['etcd://a#x', 'options: expected no "#" in the URL: write %23'],
    ['memory://u:p@a', 'options: expected no user name in a URL of the memory backend'],
    [
      'etcd://h1:2379,u:p@h2',
      'options: expected no "," before the "@" of the URL: write %2C in a user name or password, which stand once, before the first host',
    ],
    ['etcd://u@a', 'options.password: expected "user:password" before the "@" of the URL'],
    ['kubernetes://token@a', 'options: expected no "@" in the URL: give tokenFile, or a kubeconfig'],
    ['kubernetes://a,b', 'options: expected one host in the URL: the API server of a cluster has one address'],
    ['etcd://a?ttlms=3000', 'options.ttlms: unknown option; did you mean "ttlMs"?'],
    ['etcd://a?tls.cafile=x', 'options.tls.cafile: unknown option; did you mean "caFile"?'],
    ['etcd://a?namespace=x', `options.namespace: not an option of the etcd backend, only of ${owners('namespace')}`],
    ['memory://a?tls.ca=x', 'options.tls.ca: unknown option'],
    ['etcd://a?backend=etcd', `options.backend: given by the scheme of the URL: ${forms}`],
    ['etcd://a?hosts=b', 'options.hosts: given twice in the URL: before and after the "?"'],
    ['etcd://a?ttlMs=1&ttlMs=2', 'options.ttlMs: given twice in the URL'],
    ['etcd://a?ttlMs', 'options.ttlMs: expected a value: write "name=value"'],
    ['etcd://a?ttlMs=', 'options.ttlMs: expected a whole number, got other text'],
    ['etcd://a?ttlMs=3s', 'options.ttlMs: expected a whole number, got other text'],
    ['etcd://a?lazy=yes', 'options.lazy: expected true, false, 1 or 0, got other text'],
    ['etcd://a?logger=true', 'options.logger: expected false: a URL can only turn it off'],
    ['etcd://a?prefix=%zz', 'options.prefix: expected valid percent-encoding in the URL: write %25 for "%"'],
    ['etcds://a?tls=false', 'options.tls: contradicts the rest of the URL'],
    ['etcd://a?tls=false&tls.ca=x', 'options.tls.ca: contradicts tls=false'],
    ['etcd://a?__proto__=x', 'options.__proto__: unknown option'],
  ])('%s', (url, message) => {
    expect(refusal(url)).toBe(message);
  });
});

describe('a password never shows', () => {
  // Passwords that nobody has encoded, cut apart by the URL's own characters.
  it.each([
    'etcd://user:hunter2/x@host:1',
    'etcd://user:hunter2?x=hunter2@host:1',
    'etcd://user:hunter2#x@host:1',
    'etcd://user:hunter2&%zz@host:1',
    'etcd://user:hunter2@ho st:1',
    'etcd://user:hunter2@host:99999',
    'etcd://user:hunter2@host/path',
    'etcd://user:hunter2@host?ttl=3',
    'etdc://user:hunter2@host',
    'memory://user:hunter2@host',
    'kubernetes://hunter2@host:6443',
    'etcd://user:hunter2,x@a:b:c',
    'etcd:user:hunter2@host',
    'user:hunter2@host:1',
    'user:hunter2://host:1',
  ])('%s', async (url) => {
    const error: Error = await Promise.resolve()
      .then(() => settle(parseUrl(url)))
      .then(
        () => new Error('not refused'),
        (thrown: Error) => thrown,
      );
    expect(error).toBeInstanceOf(InvalidArgumentError);
    expect(`${error.message} ${error.stack} ${JSON.stringify(error)}`).not.toContain('hunter2');
  });
});
