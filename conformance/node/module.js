// azure-iot-device as a module: module.js mqtt | ws.
'use strict';

const assert = require('node:assert/strict');

const { Message, ModuleClient } = require('azure-iot-device');
const { errors } = require('azure-iot-common');
const { Mqtt, MqttWs } = require('azure-iot-device-mqtt');

const { Inbox, runAll, test } = require('./cases');
const hub = require('./hub');

const [, , kind] = process.argv;
const Transport = { mqtt: Mqtt, ws: MqttWs }[kind];
const newModule = () => hub.newModule(`node-module-${kind}`);

test('modules', 'telemetry, and telemetry by an output', async () => {
  const module = await newModule();
  await withClient(module, async (client) => {
    await client.sendEvent(new Message('plain'));
    await client.sendOutputEvent('out', new Message('by output'));
  });
  const [plain, by] = await module.telemetry(2);
  assert.deepEqual([plain.body, by.body], ['plain', 'by output']);
  assert.equal(plain.systemProperties['iothub-connection-module-id'], module.moduleId);
  assert.equal(by.systemProperties['on'] ?? by.systemProperties['iothub-output-name'] ?? by.systemProperties['output-name'], 'out');
});

test('modules', 'a twin of its own, both ways', async () => {
  const module = await newModule();
  await module.desire({ a: 1 });
  await withClient(module, async (client) => {
    const twin = await client.getTwin();
    assert.deepEqual(twin.properties.desired, { a: 1, $version: 2 });
    const patches = new Inbox();
    twin.on('properties.desired', (patch) => patches.push(structuredClone(patch)));
    await patches.next('the twin as it is');
    await client.getTwin();
    await patches.next('the twin as it is');
    await module.desire({ b: 2 });
    assert.deepEqual(await patches.next(), { b: 2, $version: 3 });
    await new Promise((resolve, reject) => {
      twin.properties.reported.update({ c: 3 }, (error) => (error ? reject(error) : resolve()));
    });
  });
  assert.equal((await module.twin()).properties.reported.c, 3);
  const device = await new hub.Device(module.id).twin();
  assert.equal(device.properties.reported.c, undefined);
});

test('modules', 'direct methods, after a drop as well', async () => {
  const module = await newModule();
  await withClient(module, async (client) => {
    client.onMethod('m', (request, response) => response.send(200, { given: request.payload }));
    assert.deepEqual(await module.invoke('m', { connect: 10, payload: 1 }), { status: 200, payload: { given: 1 } });
    await module.drop();
    assert.deepEqual(await module.invoke('m', { connect: 10, payload: 2 }), { status: 200, payload: { given: 2 } });
  });
});

test('modules', 'a wrong key is refused', async () => {
  const module = await newModule();
  module.key = Buffer.alloc(32, 7).toString('base64');
  await assert.rejects(withClient(module, () => {}), errors.UnauthorizedError);
});

async function withClient(module, use) {
  const client = ModuleClient.fromConnectionString(module.connectionString(), Transport);
  try {
    await client.open();
    return await use(client);
  } finally {
    client.removeAllListeners();
    await client.close().catch(() => {});
  }
}

runAll('azure-iot-device', kind === 'ws' ? 'MQTT over WebSocket' : 'MQTT');
