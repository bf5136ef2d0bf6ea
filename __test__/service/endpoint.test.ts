import { describe, expect, it } from 'vitest';
import { isLocal, parseEndpoint } from '../../lib/service/endpoint.js';

describe('an endpoint', () => {
  it.each([
    ['grpc://10.1.2.3:9000', { scheme: 'grpc', host: '10.1.2.3', port: 9000, secure: false }],
    ['GRPCS://Host.test:443', { scheme: 'grpcs', host: 'Host.test', port: 443, secure: true }],
    ['grpc://[2001:db8::1]:9000', { scheme: 'grpc', host: '2001:db8::1', port: 9000, secure: false }],
    ['http://h:80/base/path?x=1', { scheme: 'http', host: 'h', port: 80, path: '/base/path', secure: false }],
    ['http://h:80/', { scheme: 'http', host: 'h', port: 80, secure: false }],
    ['grpc://h:9000?isSecure=true', { scheme: 'grpc', host: 'h', port: 9000, secure: true }],
    ['grpc://h:9000?isSecure=false', { scheme: 'grpc', host: 'h', port: 9000, secure: false }],
    ['unix:///run/orders.sock', { scheme: 'unix', host: '', port: 0, path: '/run/orders.sock', secure: false }],
  ])('%s', (url, parts) => {
    const endpoint = parseEndpoint(url);
    expect(endpoint).toEqual({ ...parts, url });
    expect(Object.isFrozen(endpoint)).toBe(true);
  });

  it.each([
    '',
    'h:80',
    'http://h',
    'http://h:0',
    'http://h:65536',
    'http://u:p@h:80',
    'http://[::1:80',
    'http://:80',
    '://h:80',
    'http://a b:80',
    'unix:',
    'unix://',
  ])('%j can not be called', (url) => expect(parseEndpoint(url)).toBeUndefined());

  it.each([
    'http://127.0.0.1:1',
    'http://127.9.9.9:1',
    'http://localhost:1',
    'http://LOCALHOST.:1',
    'http://a.localhost:1',
    'http://[::1]:1',
    'http://[0:0:0:0:0:0:0:1]:1',
    'http://[::]:1',
    'http://0.0.0.0:1',
    'http://169.254.169.254:1',
    'http://[fe80::1]:1',
    'http://[::ffff:127.0.0.1]:1',
    'http://[::ffff:7f00:1]:1',
    'http://2130706433:1',
    'http://0x7f000001:1',
    'http://127.1:1',
    'unix:///run/x',
  ])('%s is another place for each caller', (url) => expect(isLocal(parseEndpoint(url) as never)).toBe(true));

  it.each([
    'http://10.0.0.1:1',
    'http://host:1',
    'http://[2001:db8::1]:1',
    'http://[fd00::1]:1',
    'http://169.253.0.1:1',
    'http://128.0.0.1:1',
    'http://[::ffff:10.0.0.1]:1',
  ])('%s is not', (url) => expect(isLocal(parseEndpoint(url) as never)).toBe(false));
});
