// What the demo makes on Kubernetes with --create: a namespace of its own, and a pod for each instance. It asks the API server of
// the URL itself, with the token of the URL, which must have the right to make namespaces, pods, and their status.

import { readFileSync } from 'node:fs';
import { request } from 'node:https';
import { setTimeout as delay } from 'node:timers/promises';

const STRATEGIC = 'application/strategic-merge-patch+json';
/** A container that does nothing, for as long as it is let. */
const IMAGE = 'registry.k8s.io/pause:3.10';
const PATIENCE_MS = 60_000;
const CALL_MS = 10_000;

/**
 * Makes the namespace and the pods, and waits until they are up. Where the cluster has no node it says that they are, as a
 * kubelet would.
 *
 * @param {string} given kubernetes://host:port?token=…&caFile=…
 * @param {string} tag of the namespace
 * @param {string[]} pods their names
 */
export async function createObjects(given, tag, pods) {
  const url = new URL(given);
  const option = (name) => url.searchParams.get(name) ?? undefined;
  const token = option('token') ?? (option('tokenFile') && readFileSync(option('tokenFile'), 'utf8').trim());
  if (!url.host || !token) {
    throw Object.assign(
      new Error('--create needs a URL with host and token: kubernetes://host:port?token=…&caFile=…'),
      {
        code: 'ERR_DEMO',
      },
    );
  }
  const ca = option('caFile') && readFileSync(option('caFile'));

  /** Resolves with what the server answers, unless it refuses. */
  const ask = (method, path, body, type = 'application/json') =>
    new Promise((resolve, reject) => {
      const call = request(
        `https://${url.host}${path}`,
        { method, ca, timeout: CALL_MS, headers: { authorization: `Bearer ${token}`, 'content-type': type } },
        (answer) => {
          let text = '';
          answer.setEncoding('utf8').on('data', (chunk) => {
            text += chunk;
          });
          answer.on('error', reject);
          answer.on('end', () => {
            if (answer.statusCode < 300) return resolve(JSON.parse(text));
            reject(Object.assign(new Error(`${method} ${path}: ${answer.statusCode} ${text}`), { code: 'ERR_DEMO' }));
          });
        },
      );
      call.on('timeout', () => call.destroy(new Error(`${method} ${path}: no answer within ${CALL_MS / 1000} s`)));
      call.on('error', (error) => reject(Object.assign(error, { code: 'ERR_DEMO' })));
      call.end(body && JSON.stringify(body));
    });

  const namespace = `rollcall-demo-${tag}`;
  const all = `/api/v1/namespaces/${namespace}/pods`;
  const endPod = (pod) => ask('DELETE', `${all}/${pod}?gracePeriodSeconds=0`);
  const close = async () => {
    await Promise.all(pods.map((pod) => endPod(pod).catch(() => {})));
    await ask('DELETE', `/api/v1/namespaces/${namespace}`);
  };

  await ask('POST', '/api/v1/namespaces', { metadata: { name: namespace } });
  try {
    const hasKubelet = (await ask('GET', '/api/v1/nodes?limit=1')).items.length > 0;
    for (const [index, name] of pods.entries()) {
      await created(() =>
        ask('POST', all, { metadata: { name }, spec: { containers: [{ name: 'main', image: IMAGE }] } }),
      );
      if (hasKubelet) continue;
      const podIP = `10.0.0.${index + 1}`;
      const conditions = [{ type: 'Ready', status: 'True' }];
      const status = { phase: 'Running', podIP, podIPs: [{ ip: podIP }], conditions };
      await ask('PATCH', `${all}/${name}/status`, { status }, STRATEGIC);
    }
    for (const name of pods) {
      const deadline = performance.now() + PATIENCE_MS;
      while (!isReady(await ask('GET', `${all}/${name}`))) {
        if (performance.now() > deadline) {
          throw Object.assign(new Error(`the pod ${name} is not ready after ${PATIENCE_MS / 1000} s`), {
            code: 'ERR_DEMO',
          });
        }
        await delay(200);
      }
    }
  } catch (error) {
    await close().catch(() => {});
    throw error;
  }

  url.searchParams.set('namespace', namespace);
  return {
    namespace,
    /** Where the instances of the demo are. */
    url: url.href,
    /** For the instance of a pod. */
    urlOf(pod) {
      const own = new URL(url);
      own.searchParams.set('pod', pod);
      return own.href;
    },
    endPod,
    /** Ends the pods and the namespace. */
    close,
  };
}

const isReady = ({ status }) =>
  status.phase === 'Running' && status.conditions?.some((one) => one.type === 'Ready' && one.status === 'True');

/** A cluster refuses pods until it has made the service account of a new namespace, a moment after it. */
async function created(create) {
  for (const deadline = performance.now() + PATIENCE_MS; ; await delay(200)) {
    try {
      return await create();
    } catch (error) {
      if (!/serviceaccount "?default"? not found|error looking up service account/.test(error.message)) throw error;
      if (performance.now() > deadline) throw error;
    }
  }
}
