// One instance of the demo. On a real registry it is a process of its own, which does what the demo tells it over IPC;
// on the memory backend the demo opens it in its own process.

import { pathToFileURL } from 'node:url';
import { connect } from 'rollcall';

/**
 * Registers an instance by a client of its own.
 *
 * @param {string | undefined} url the registry
 * @param {import('rollcall').InstanceInput} instance
 * @param {(event: string, reason?: string) => void} report is told what happens to the registration
 */
export async function openInstance(url, instance, report) {
  const registry = await connect(url);
  let registration;
  try {
    registration = await registry.register(instance);
  } catch (error) {
    await registry.close();
    throw error;
  }
  registration.on('lost', (reason) => report('lost', reason));
  registration.on('restored', () => report('restored'));
  registration.on('replaced', () => report('replaced'));
  return {
    update: (patch) => registration.update(patch),
    deregister: () => registration.deregister(),
    close: () => registry.close({ timeoutMs: 2000 }),
  };
}

if (process.send && import.meta.url === pathToFileURL(process.argv[1]).href) {
  let opening;
  const tell = (message) => process.connected && process.send(message);
  const actions = {
    register(wanted) {
      opening = openInstance(undefined, wanted, (event, reason) => tell({ event, reason }));
      return opening;
    },
    update: async (patch) => (await opening).update(patch),
    deregister: async () => (await opening).deregister(),
    close: async () => (await opening?.catch(() => {}))?.close(),
  };

  process.on('message', async ({ id, action, argument }) => {
    try {
      await actions[action](argument);
      tell({ id });
    } catch (error) {
      tell({ id, error: { name: error.name, code: error.code, message: error.message } });
    }
    if (action === 'close') process.disconnect();
  });
  // Ctrl-C reaches every process of the terminal: the demo decides, and closes this one.
  process.on('SIGINT', () => {});
  process.on('disconnect', () => actions.close().catch(() => {})); // the demo is gone, however it went
}
