// The guide's own words about ids, as a program of this package: what its `main.go` and its services do, line by line.
import { connectCoord } from 'rollcall/coord';
import { createUid, parseUuidv7, uuidv7 } from 'rollcall/uid';
import { expect, test } from 'vitest';
import { begin } from './uid-kit.js';

test('a service makes request ids and message ids, and takes one apart', async (finish) => {
  const server = await begin(finish);
  // uidConfig := uid.GetDefaultConfig(environment); uidConfig.ServiceName = "message-service"
  const coordProvider = await connectCoord({
    url: server.url,
    env: 'production',
    service: 'message-service',
    logger: false,
  });
  finish.onTestFinished(() => coordProvider.close());
  // uidProvider, err := uid.New(ctx, uidConfig, uid.WithLogger(clog.Namespace("uid")), uid.WithCoordProvider(coordProvider))
  const uidProvider = await createUid({ coord: coordProvider, service: 'message-service', logger: false });

  // requestID := uidProvider.GetUUIDV7()
  const requestId = uuidv7();
  expect(Math.abs(parseUuidv7(requestId).at.getTime() - Date.now())).toBeLessThan(1000);

  // messageID, err := uidProvider.GenerateSnowflake()
  const messageId = uidProvider.next();
  expect(uidProvider.next()).toBeGreaterThan(messageId);

  // timestamp, instanceID, sequence := uidProvider.ParseSnowflake(messageID)
  const { at, workerId, sequence } = uidProvider.parse(messageId);
  expect(Math.abs(at.getTime() - Date.now())).toBeLessThan(5000);
  expect([workerId, sequence]).toEqual([uidProvider.workerId, 0]);
  // As Go's, of the same bits and the same epoch.
  expect(Number(messageId >> 22n) + 1_288_834_974_657).toBe(at.getTime());
  const id = `/im-infra/allocators/message-service/ids/${workerId || 1024}`;
  expect(await server.keys('/im-infra/allocators/message-service/ids/')).toEqual([id]);

  // defer uidProvider.Close()
  await uidProvider.close();
  expect(await server.keys('/im-infra/allocators/message-service/ids/')).toEqual([]);
});
