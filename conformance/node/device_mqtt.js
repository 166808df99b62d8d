// azure-iot-device over MQTT as a device: device_mqtt.js mqtt | device_mqtt.js ws.
'use strict';

const assert = require('node:assert/strict');
const { once } = require('node:events');

const { Client, Message } = require('azure-iot-device');
const { errors, NoRetry } = require('azure-iot-common');
const { Mqtt, MqttWs } = require('azure-iot-device-mqtt');

const { Inbox, eventually, runAll, test } = require('./cases');
const hub = require('./hub');

const [, , kind] = process.argv;
const Transport = { mqtt: Mqtt, ws: MqttWs }[kind];
const newDevice = () => hub.newDevice(`node-${kind}`);

// Telemetry

test('telemetry', 'a string arrives', async () => {
  const device = await newDevice();
  await withClient(device, (client) => client.sendEvent(new Message('{"t":1}')));
  const [record] = await device.telemetry(1);
  assert.equal(record.body, '{"t":1}');
  assert.deepEqual(record.properties, {});
});

test('telemetry', 'properties of every kind arrive', async () => {
  const device = await newDevice();
  const message = new Message('x');
  message.messageId = 'id 1/:+';
  message.correlationId = 'c&1=%41';
  message.userId = 'u';
  message.contentType = 'application/json';
  message.contentEncoding = 'utf-8';
  message.expiryTimeUtc = '2099-12-31T00:00:00Z';
  message.interfaceId = 'urn:azureiot:Security:SecurityAgent:1';
  const custom = { zeta: 'a b', 'alpha-1': 'x=y&z/%41+?#:', größe: 'ä€😀', empty: '' };
  Object.entries(custom).forEach(([name, value]) => message.properties.add(name, value));
  await withClient(device, (client) => client.sendEvent(message));
  const [record] = await device.telemetry(1);
  assert.deepEqual(sorted(record.properties), sorted(custom));
  const system = record.systemProperties;
  assert.equal(system['message-id'], 'id 1/:+');
  assert.equal(system['correlation-id'], 'c&1=%41');
  assert.equal(system['user-id'], 'u');
  assert.equal(system['content-type'], 'application/json');
  assert.equal(system['content-encoding'], 'utf-8');
  assert.equal(system['absolute-expiry-time'], '2099-12-31T00:00:00Z');
  assert.equal(system.ifid, 'urn:azureiot:Security:SecurityAgent:1');
});

test('telemetry', 'the hub stamps who sent it and how', async () => {
  const device = await newDevice();
  await withClient(device, (client) => client.sendEvent(new Message('x')));
  const [{ systemProperties: system }] = await device.telemetry(1);
  assert.equal(system['iothub-connection-device-id'], device.id);
  assert.equal(JSON.parse(system['iothub-connection-auth-method']).scope, 'device');
  assert.ok(system['iothub-connection-auth-generation-id']);
  assert.ok(system['iothub-enqueuedtime']);
});

test('telemetry', 'any bytes arrive, and none', async () => {
  const device = await newDevice();
  const bytes = Buffer.from(Array.from({ length: 256 }, (_, byte) => byte));
  await withClient(device, async (client) => {
    await client.sendEvent(new Message(bytes));
    await client.sendEvent(new Message(''));
  });
  const [first, second] = await device.telemetry(2);
  assert.equal(first.bodyBase64, bytes.toString('base64'));
  assert.equal(second.body, '');
});

test('telemetry', 'many at once arrive, each once and in order', async () => {
  const device = await newDevice();
  const texts = Array.from({ length: 200 }, (_, number) => `many ${number}`);
  await withClient(device, (client) => Promise.all(texts.map((text) => client.sendEvent(new Message(text)))));
  assert.deepEqual((await device.telemetry(texts.length)).map((record) => record.body), texts);
});

test('telemetry', 'a batch is sent one by one', async () => {
  const device = await newDevice();
  await withClient(device, async (client) => {
    const error = await client.sendEventBatch([new Message('a')]).then(() => null, (reason) => reason);
    assert.ok(error instanceof errors.NotImplementedError, `${error}`);
  });
});

test('telemetry', 'a large message is taken', async () => {
  const device = await newDevice();
  await withClient(device, (client) => client.sendEvent(new Message(Buffer.alloc(255 * 1024, 'x'))));
  assert.equal((await device.telemetry(1))[0].body.length, 255 * 1024);
});

test('telemetry', 'a model that is announced is stamped and shown in the twin', async () => {
  const device = await newDevice();
  const model = 'dtmi:com:example:Thermostat;1';
  const client = newClient(device);
  await client.setOptions({ modelId: model });
  await using(client, async () => {
    await client.sendEvent(new Message('x'));
    assert.equal((await device.twin()).modelId, model);
  });
  assert.equal((await device.telemetry(1))[0].systemProperties['dt-dataschema'], model);
});

// Cloud-to-device messages

test('cloud-to-device', 'a message comes with its properties and is completed', async () => {
  const device = await newDevice();
  await withClient(device, async (client) => {
    const received = messagesOf(client);
    await device.send('{"on":true}', {
      'iothub-messageid': 'id 1/:+',
      'iothub-correlationid': 'c',
      'iothub-userid': 'u',
      'iothub-contenttype': 'application/json',
      'iothub-contentencoding': 'utf-8',
      'iothub-expiry': '2099-12-31T00:00:00Z',
      'iothub-ack': 'full',
      'iothub-app-level': 'a b',
      'iothub-app-odd': 'x=y&z/%41+?#:',
    });
    const message = await received.next();
    assert.equal(message.getData().toString(), '{"on":true}');
    assert.deepEqual([message.messageId, message.correlationId, message.userId], ['id 1/:+', 'c', 'u']);
    assert.deepEqual([message.contentType, message.contentEncoding], ['application/json', 'utf-8']);
    assert.match(`${message.expiryTimeUtc}`, /^2099-12-31T00:00:00/);
    assert.equal(message.properties.getValue('level'), 'a b');
    assert.equal(message.properties.getValue('odd'), 'x=y&z/%41+?#:');
    await client.complete(message);
    assert.equal(await device.feedback('id 1/:+'), 'Success');
  });
});

test('cloud-to-device', 'several come in order, and the queue is empty then', async () => {
  const device = await newDevice();
  await withClient(device, async (client) => {
    const received = messagesOf(client);
    const texts = Array.from({ length: 30 }, (_, number) => `${number}`);
    for (const text of texts) await device.send(text);
    for (const text of texts) {
      const message = await received.next();
      assert.equal(message.getData().toString(), text);
      await client.complete(message);
    }
    await device.emptied();
  });
});

test('cloud-to-device', 'what was sent while the device was away comes when it connects', async () => {
  const device = await newDevice();
  await withClient(device, async (client) => {
    const received = messagesOf(client);
    await subscribed(device, client);
    await received.next();
    await client.close();
    await device.send('one');
    await device.send('two');
    await client.open();
    const texts = [await received.next(), await received.next()].map((message) => message.getData().toString());
    assert.deepEqual(texts, ['one', 'two']);
  });
});

test('cloud-to-device', 'MQTT has no reject and no abandon', async () => {
  const device = await newDevice();
  await withClient(device, async (client) => {
    const received = messagesOf(client);
    await device.send('x');
    const message = await received.next();
    for (const settle of ['reject', 'abandon']) {
      await assert.rejects(client[settle](message), errors.NotImplementedError);
    }
  });
});

// Twins

test('twin', 'the device reads what the service wrote', async () => {
  const device = await newDevice();
  const desired = { interval: 5, deep: { list: [1, { a: 'b' }], text: 'ä€' } };
  await device.desire(desired);
  await withClient(device, async (client) => {
    const twin = await client.getTwin();
    assert.deepEqual(twin.properties.desired, { ...desired, $version: 2 });
    assert.equal(twin.properties.reported.$version, 1);
  });
});

test('twin', 'the service reads what the device reported', async () => {
  const device = await newDevice();
  const expected = { fw: '2', deep: { b: [1, 2.5, true] }, $version: 3 };
  await withClient(device, async (client) => {
    const twin = await client.getTwin();
    await report(twin, { fw: '1', gone: 1, deep: { a: 1, b: [1, 2.5, true] } });
    await report(twin, { fw: '2', gone: null, deep: { a: null } });
  });
  const { $metadata, ...reported } = (await device.twin()).properties.reported;
  assert.ok($metadata.fw.$lastUpdated);
  assert.deepEqual(reported, expected);
});

test('twin', 'a desired patch comes as it was sent', async () => {
  const device = await newDevice();
  await device.desire({ old: 1 });
  await withClient(device, async (client) => {
    const patches = await patchesOf(client);
    await device.desire({ interval: 5, old: null, deep: { a: { b: true } } });
    assert.deepEqual(await patches.next(), { interval: 5, old: null, deep: { a: { b: true } }, $version: 3 });
  });
});

test('twin', 'after a replacement what is gone comes as null', async () => {
  const device = await newDevice();
  await device.desire({ a: 1, b: 2 });
  await withClient(device, async (client) => {
    const patches = await patchesOf(client);
    await device.replaceDesired({ a: 1, c: 100 });
    assert.deepEqual(await patches.next(), { a: 1, b: null, c: 100, $version: 3 });
  });
});

test('twin', 'a patch that breaks a rule is an error', async () => {
  const device = await newDevice();
  await withClient(device, async (client) => {
    client.setRetryPolicy(new NoRetry());
    const twin = await client.getTwin();
    for (const patch of [{ 'bad.key': 1 }, { long: 'x'.repeat(4097) }, { big: 2 ** 52 }]) {
      await assert.rejects(report(twin, patch));
    }
    await report(twin, { good: 'x'.repeat(4096) });
  });
  assert.equal((await device.twin()).properties.reported.$version, 2);
});

test('twin', 'many requests at once are answered', async () => {
  const device = await newDevice();
  await withClient(device, async (client) => {
    const twin = await client.getTwin();
    await Promise.all(Array.from({ length: 30 }, (_, number) => report(twin, { [`p${number}`]: number })));
  });
  assert.equal((await device.twin()).properties.reported.$version, 31);
});

test('twin', 'a request that the hub refuses, 429 and 500, is an error, or tried again', async () => {
  const device = await newDevice();
  await withClient(device, async (client) => {
    client.setRetryPolicy(new NoRetry());
    for (const status of [429, 500]) {
      await device.fault('fail-twin-requests', { status });
      await assert.rejects(client.getTwin());
    }
    await client.getTwin();
  });
});

// Direct methods

test('direct methods', 'request and response carry their payloads', async () => {
  const device = await newDevice();
  await withClient(device, async (client) => {
    await answering(device, client, 'reboot');
    for (const payload of [{ delay: 5 }, [1, 2], 'text', 7, true, { deep: { ä: '€' } }]) {
      const answer = await device.invoke('reboot', { payload });
      assert.deepEqual(answer, { status: 200, payload: { name: 'reboot', given: payload } });
    }
  });
});

test('direct methods', 'a request without a payload is refused by the SDK itself', async () => {
  const device = await newDevice();
  await withClient(device, async (client) => {
    await answering(device, client, 'reboot');
    // The SDK parses the body before it asks the application, and a hub sends none.
    const { status, payload } = await device.invoke('reboot');
    assert.equal(status, 400);
    assert.match(payload, /^Invalid request format/);
  });
});

test('direct methods', 'status and payload of the response are the device\'s own', async () => {
  const device = await newDevice();
  const answers = { none: [404, null], text: [500, 'no'], large: [200, { x: 'x'.repeat(100000) }] };
  await withClient(device, async (client) => {
    for (const [name, [status, payload]] of Object.entries(answers)) {
      client.onDeviceMethod(name, (_, response) => response.send(status, payload));
    }
    for (const [name, [status, payload]] of Object.entries(answers)) {
      assert.deepEqual(await device.invoke(name, { connect: 10, payload: 1 }), { status, payload });
    }
  });
});

test('direct methods', 'several wait at once', async () => {
  const device = await newDevice();
  await withClient(device, async (client) => {
    await answering(device, client, 'm');
    const numbers = Array.from({ length: 20 }, (_, number) => number);
    const answers = await Promise.all(numbers.map((payload) => device.invoke('m', { payload })));
    assert.deepEqual(answers.map(({ payload }) => payload.given), numbers);
  });
});

test('direct methods', 'no answer in time is 504 to the caller', async () => {
  const device = await newDevice();
  await withClient(device, async (client) => {
    await answering(device, client, 'm');
    client.onDeviceMethod('slow', () => {});
    await assert.rejects(device.invoke('slow', { response: 5, payload: 1 }), { status: 504 });
  });
});

test('direct methods', 'a device that is away is 404 to the caller, until it comes in time', async () => {
  const device = await newDevice();
  await assert.rejects(device.invoke('m', { payload: 1 }), (error) => error.status === 404 && /404103/.test(error.text));
  const caller = device.invoke('m', { connect: 20, payload: 1 });
  await withClient(device, async (client) => {
    client.onDeviceMethod('m', (request, response) => response.send(200, { given: request.payload }));
    assert.deepEqual((await caller).payload, { given: 1 });
  });
});

// Lost connections

test('reconnect', 'everything goes on after a drop, without a word of the application', async () => {
  const device = await newDevice();
  await withClient(device, async (client) => {
    const received = messagesOf(client);
    const patches = await patchesOf(client);
    await answering(device, client, 'm');
    for (const number of [1, 2, 3]) {
      await device.drop();
      await device.send(`message ${number}`);
      const message = await received.next();
      assert.equal(message.getData().toString(), `message ${number}`);
      await client.complete(message);
      const answer = await device.invoke('m', { connect: 10, payload: number });
      assert.equal(answer.payload.given, number);
      await device.desire({ number });
      assert.equal((await patches.next()).number, number);
      await client.sendEvent(new Message(`telemetry ${number}`));
      assert.equal((await client.getTwin()).properties.desired.number, number);
      await patches.next('the twin that was just read');
    }
  });
  const texts = (await device.telemetry(3)).map((record) => record.body);
  assert.deepEqual(texts, ['telemetry 1', 'telemetry 2', 'telemetry 3']);
});

test('reconnect', 'a hub that is away for a moment is tried again', async () => {
  const device = await newDevice();
  await device.fault('refuse-connect', { code: 3 });
  await withClient(device, (client) => client.sendEvent(new Message('late')));
  assert.equal((await device.telemetry(1))[0].body, 'late');
});

test('reconnect', 'a message whose PUBACK was lost is sent again', async () => {
  const device = await newDevice();
  await withClient(device, async (client) => {
    await device.fault('swallow-puback');
    const sent = client.sendEvent(new Message('again'));
    assert.equal((await device.telemetry(1))[0].body, 'again');
    await device.drop();
    await sent;
  });
  assert.equal((await device.telemetry(1))[0].body, 'again');
});

test('reconnect', 'the newer of two connections of a device stays', async () => {
  const device = await newDevice();
  const older = newClient(device);
  older.setRetryPolicy(new NoRetry());
  await older.open();
  const gone = once(older, 'disconnect');
  await withClient(device, async (newer) => {
    await gone;
    await newer.sendEvent(new Message('newer'));
  });
  assert.equal((await device.telemetry(1))[0].body, 'newer');
  await older.close().catch(() => {});
});

// Credentials

test('token renewal', 'the SDK renews its token, and everything goes on', async () => {
  const device = await newDevice();
  const client = newClient(device);
  await client.setOptions({ tokenRenewal: { tokenValidTimeInSeconds: 63, tokenRenewalMarginInSeconds: 60 } });
  await using(client, async () => {
    const received = messagesOf(client);
    await answering(device, client, 'm');
    const { connectionStateUpdatedTime: before } = await hub.ask('GET', device.path);
    const isNew = async () => (await hub.ask('GET', device.path)).connectionStateUpdatedTime !== before;
    await eventually('another connection', isNew);
    await eventually('it is up', () => device.isConnected());
    await device.send('after');
    assert.equal((await received.next()).getData().toString(), 'after');
    assert.equal((await device.invoke('m', { connect: 10, payload: 1 })).payload.given, 1);
    await client.sendEvent(new Message('still here'));
  });
  assert.equal((await device.telemetry(1))[0].body, 'still here');
});

test('token renewal', 'the application gives tokens of its own making', async () => {
  const device = await newDevice();
  const client = Client.fromSharedAccessSignature(device.token(60), Transport);
  await using(client, async () => {
    await new Promise((resolve, reject) => {
      client.updateSharedAccessSignature(device.token(600), (error) => (error ? reject(error) : resolve()));
    });
    await client.sendEvent(new Message('by the second token'));
  });
  assert.equal((await device.telemetry(1))[0].body, 'by the second token');
});

test('credentials', 'a wrong key, an unknown device and an expired token are refused', async () => {
  const device = await newDevice();
  const wrong = device.connectionString({ key: Buffer.alloc(32, 7).toString('base64') });
  const nobody = new hub.Device('nobody', { key: device.key }).connectionString();
  for (const client of [
    Client.fromConnectionString(wrong, Transport),
    Client.fromConnectionString(nobody, Transport),
    Client.fromSharedAccessSignature(device.token(-3600), Transport),
  ]) {
    await assert.rejects(client.open(), errors.UnauthorizedError);
    await client.close().catch(() => {});
  }
});

test('credentials', 'a device that is deleted is cut off', async () => {
  const device = await newDevice();
  const client = newClient(device);
  client.setRetryPolicy(new NoRetry());
  await client.open();
  const gone = once(client, 'disconnect', { signal: AbortSignal.timeout(15000) });
  await hub.ask('DELETE', device.path, undefined, { 'if-match': '*' });
  await gone;
  await client.close().catch(() => {});
});

function newClient(device) {
  return Client.fromConnectionString(device.connectionString(), Transport);
}

function withClient(device, use) {
  return using(newClient(device), use);
}

async function using(client, use) {
  await client.open();
  try {
    return await use(client);
  } finally {
    client.removeAllListeners();
    await client.close();
  }
}

function messagesOf(client) {
  const received = new Inbox();
  client.on('message', (message) => received.push(message));
  return received;
}

// Every desired patch. To listen is to subscribe, which tells nobody when it is done: a request behind it has been answered.
async function patchesOf(client) {
  const twin = await client.getTwin();
  const patches = new Inbox();
  twin.on('properties.desired', (patch) => patches.push(structuredClone(patch)));
  await patches.next('the twin as it is');
  await client.getTwin();
  await patches.next('the twin as it is');
  return patches;
}

// `update` takes a callback only.
function report(twin, patch) {
  return new Promise((resolve, reject) => {
    twin.properties.reported.update(patch, (error) => (error ? reject(error) : resolve()));
  });
}

// Waits until the device takes messages: to listen is to subscribe, which tells nobody when it is done.
async function subscribed(device, client) {
  await device.send('first');
  await eventually('the first message is taken', async () => (await device.twin()).cloudToDeviceMessageCount === 0);
}

// Answers a method with what it was given, and waits until the hub offers it.
async function answering(device, client, name) {
  client.onDeviceMethod(name, (request, response) => response.send(200, { name, given: request.payload }));
  await device.invoke(name, { connect: 10, payload: null });
}

function sorted(properties) {
  return Object.fromEntries(Object.entries(properties).sort());
}

runAll('azure-iot-device', kind === 'ws' ? 'MQTT over WebSocket' : 'MQTT');
