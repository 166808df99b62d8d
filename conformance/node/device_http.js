// azure-iot-device-http, unmodified, against CONFORMANCE_HOST: what it sends arrives at the hub, what the hub sends arrives
// here, and what is refused is refused in the form that it understands.
//
// The same cases run against the emulator (the control run) and against the gateway under a name that is not the hub's.
'use strict';

const assert = require('node:assert/strict');
const crypto = require('node:crypto');

const { Client, Message } = require('azure-iot-device');
const { Http } = require('azure-iot-device-http');
const { errors } = require('azure-iot-common');

const { runAll, test } = require('./cases');
const { Device } = require('./hub');

const {
  CONFORMANCE_TARGET: TARGET,
  CONFORMANCE_HOST: HOST,
  CONFORMANCE_DEVICE: DEVICE,
  CONFORMANCE_KEY: KEY,
} = process.env;
const device = new Device(DEVICE, { key: KEY });

test('telemetry', 'a message arrives', async () => {
  await device.forget();
  await withClient((client) => client.sendEvent(new Message('{"t":1}')));
  const [record, ...others] = await device.telemetry(1);
  assert.equal(record.body, '{"t":1}');
  assert.equal(record.deviceId, DEVICE);
  assert.deepEqual(record.properties, {});
  assert.deepEqual(others, []);
});

test('telemetry', 'properties of every kind arrive', async () => {
  const message = new Message('x');
  message.messageId = 'id 1/:+';
  message.correlationId = 'c&1=%41';
  message.userId = 'u';
  message.contentType = 'application/json';
  message.contentEncoding = 'utf-8';
  message.expiryTimeUtc = '2099-12-31T00:00:00Z';
  message.interfaceId = 'urn:azureiot:Security:SecurityAgent:1';
  message.properties.add('zeta', 'a b');
  message.properties.add('alpha-1', 'x=y&z/%41+?#');
  message.properties.add('empty', '');
  message.properties.add('dt-subject', 'thermostat');
  await device.forget();
  await withClient((client) => client.sendEvent(message));
  const [record] = await device.telemetry(1);
  assert.deepEqual(sorted(record.properties), sorted({ zeta: 'a b', 'alpha-1': 'x=y&z/%41+?#', empty: '' }));
  const system = record.systemProperties;
  assert.equal(system['message-id'], 'id 1/:+');
  assert.equal(system['correlation-id'], 'c&1=%41');
  assert.equal(system['user-id'], 'u');
  assert.equal(system['content-type'], 'application/json');
  assert.equal(system['content-encoding'], 'utf-8');
  assert.equal(system['absolute-expiry-time'], '2099-12-31T00:00:00Z');
  assert.equal(system.ifid, 'urn:azureiot:Security:SecurityAgent:1');
  assert.equal(system['dt-subject'], 'thermostat');
  assert.equal(system.to, undefined, 'the path in iothub-to is no property of the message');
});

test('telemetry', 'any bytes arrive, and none', async () => {
  const bytes = Buffer.from(Array.from({ length: 256 }, (_, byte) => byte));
  await device.forget();
  await withClient(async (client) => {
    await client.sendEvent(new Message(bytes));
    await client.sendEvent(new Message(''));
  });
  const [first, second] = await device.telemetry(2);
  assert.equal(first.bodyBase64, bytes.toString('base64'));
  assert.equal(second.body, '');
});

test('telemetry', 'a batch arrives in order', async () => {
  const messages = ['one', 'two', 'three'].map((text) => new Message(text));
  messages[0].properties.add('zeta', 'a b');
  messages[2].properties.add('alpha-1', 'x=y&z');
  messages[2].properties.add('dt-subject', 'thermostat');
  await device.forget();
  await withClient((client) => client.sendEventBatch(messages));
  const records = await device.telemetry(3);
  assert.deepEqual(records.map((record) => record.body), ['one', 'two', 'three']);
  assert.deepEqual(records.map((record) => record.properties), [{ zeta: 'a b' }, {}, { 'alpha-1': 'x=y&z' }]);
  assert.equal(records[2].systemProperties['dt-subject'], 'thermostat');
});

test('telemetry', 'many at once arrive, each once', async () => {
  const texts = Array.from({ length: 50 }, (_, number) => `many ${number}`);
  await device.forget();
  await withClient((client) =>
    inGroups(texts, 10, (text) => client.sendEvent(new Message(text))),
  );
  const records = await device.telemetry(texts.length);
  assert.deepEqual(records.map((record) => record.body).sort(), texts.sort());
});

test('telemetry', 'the largest message is taken, a larger one and a larger batch are not', async () => {
  await device.forget();
  await withClient(async (client) => {
    await client.sendEvent(new Message(Buffer.alloc(256 * 1024)));
    const single = new Message(Buffer.alloc(256 * 1024 + 1));
    await assert.rejects(client.sendEvent(single), errors.MessageTooLargeError);
    const batch = [1, 2].map(() => new Message(Buffer.alloc(128 * 1024)));
    await assert.rejects(client.sendEventBatch(batch), errors.MessageTooLargeError);
    await client.sendEvent(new Message('after'));
  });
  const records = await device.telemetry(2);
  assert.deepEqual(records.map((record) => record.body?.length), [256 * 1024, 5]);
});

test('cloud-to-device', 'a message comes down with its properties and is completed', async () => {
  const id = crypto.randomUUID();
  await device.send('{"on":true}', {
    'iothub-messageid': id,
    'iothub-correlationid': 'c',
    'iothub-contenttype': 'application/json',
    'iothub-ack': 'full',
    'iothub-app-level': 'a b',
  });
  await withClient(async (client) => {
    const message = await receive(client, id);
    assert.equal(message.getData().toString(), '{"on":true}');
    assert.equal(message.correlationId, 'c');
    assert.equal(message.to.toLowerCase(), `/devices/${DEVICE}/messages/devicebound`);
    // The SDK leaves the prefix in the name.
    assert.equal(message.properties.getValue('iothub-app-level'), 'a b');
    assert.match(message.lockToken, /^[0-9A-Za-z._-]+$/);
    await client.complete(message);
  });
  assert.equal(await device.feedback(id), 'Success');
  await device.emptied();
});

test('cloud-to-device', 'several come down in order', async () => {
  const ids = Array.from({ length: 5 }, () => crypto.randomUUID());
  for (const id of ids) await device.send('x', { 'iothub-messageid': id });
  await withClient(async (client) => {
    const seen = [];
    await receiveAll(client, async (message) => {
      seen.push(message.messageId);
      await client.complete(message);
      return seen.length === ids.length;
    });
    assert.deepEqual(seen, ids);
  });
  await device.emptied();
});

test('cloud-to-device', 'an abandoned message comes again', async () => {
  const id = crypto.randomUUID();
  await device.send('again', { 'iothub-messageid': id, 'iothub-ack': 'full' });
  await withClient(async (client) => {
    const first = await receive(client, id);
    await client.abandon(first);
    const second = await receive(client, id);
    assert.notEqual(second.lockToken, first.lockToken);
    await assert.rejects(client.complete(first), isAnswered(412, 'DeviceMessageLockLost'));
    await client.complete(second);
  });
  assert.equal(await device.feedback(id), 'Success');
});

test('cloud-to-device', 'a rejected message comes no more', async () => {
  const [rejected, next] = [crypto.randomUUID(), crypto.randomUUID()];
  await device.send('no', { 'iothub-messageid': rejected, 'iothub-ack': 'full' });
  await withClient(async (client) => {
    await client.reject(await receive(client, rejected));
    await device.send('yes', { 'iothub-messageid': next });
    await client.complete(await receive(client, next));
  });
  // MQTT has no word for it: the gateway keeps the dead letter, and for the hub the message is completed.
  assert.equal(await device.feedback(rejected), TARGET === 'gateway' ? 'Success' : 'Rejected');
});

test('cloud-to-device', 'a message is settled once', async () => {
  const id = crypto.randomUUID();
  await device.send('once', { 'iothub-messageid': id });
  await withClient(async (client) => {
    const message = await receive(client, id);
    await client.complete(message);
    // To say the same again is taken by the gateway: its first answer may have been lost on the way.
    if (TARGET === 'gateway') await client.complete(message);
    for (const settle of TARGET === 'gateway' ? ['abandon', 'reject'] : ['complete', 'abandon', 'reject']) {
      await assert.rejects(client[settle](message), isAnswered(412, 'DeviceMessageLockLost'), settle);
    }
  });
});

test('credentials', 'a token that the application made is taken', async () => {
  await device.forget();
  await withClient(
    (client) => client.sendEvent(new Message('by token')),
    Client.fromSharedAccessSignature(device.token(600, { host: HOST }), Http),
  );
  assert.equal((await device.telemetry(1))[0].body, 'by token');
});

test('credentials', 'a wrong key is refused', async () => {
  const wrong = Buffer.alloc(32, 7).toString('base64');
  await refused(Client.fromConnectionString(device.connectionString({ host: HOST, key: wrong }), Http));
});

test('credentials', 'an expired token is refused', async () => {
  await refused(Client.fromSharedAccessSignature(device.token(-3600, { host: HOST }), Http));
});

test('credentials', 'an unknown device is refused in the same words', async () => {
  const nobody = new Device('nobody', { key: KEY });
  await refused(Client.fromConnectionString(nobody.connectionString({ host: HOST }), Http));
});

test('credentials', 'after a refusal the device is served', async () => {
  await refused(Client.fromSharedAccessSignature(device.token(-3600, { host: HOST }), Http));
  await device.forget();
  await withClient((client) => client.sendEvent(new Message('still here')));
  assert.equal((await device.telemetry(1))[0].body, 'still here');
});

async function withClient(use, client = Client.fromConnectionString(device.connectionString({ host: HOST }), Http)) {
  // Polls five times a second, one message at a time.
  await client.setTransportOptions({ interval: 0.2, drain: false });
  await client.open();
  try {
    return await use(client);
  } finally {
    client.removeAllListeners('message');
    await client.close();
  }
}

// Gives every message to `take`, one after the other, until that says true; fails if it does not within 20 s.
function receiveAll(client, take) {
  return new Promise((resolve, reject) => {
    let last = Promise.resolve(false);
    const late = setTimeout(() => finish(() => reject(new Error('the message did not come in 20 s'))), 20000);
    const onMessage = (message) => {
      last = last.then(async (isDone) => {
        if (isDone) return true;
        const isEnough = await take(message);
        if (isEnough) finish(resolve);
        return isEnough;
      });
      last.catch((error) => finish(() => reject(error)));
    };
    const finish = (settle) => {
      clearTimeout(late);
      client.removeListener('message', onMessage);
      settle();
    };
    client.on('message', onMessage);
  });
}

// The message with this id; others are completed on the way: an earlier case may have left them.
async function receive(client, id) {
  let found;
  await receiveAll(client, async (message) => {
    if (message.messageId === id) {
      found = message;
      return true;
    }
    await client.complete(message);
    return false;
  });
  return found;
}

async function refused(client) {
  await withClient(async () => {
    const error = await client.sendEvent(new Message('never')).then(
      () => assert.fail('it was taken'),
      (reason) => reason,
    );
    assert.ok(error instanceof errors.UnauthorizedError, `${error}`);
    isAnswered(401, 'IotHubUnauthorizedAccess')(error);
  }, client);
}

// An answer in the hub's form: status, header, and the first envelope in the body.
function isAnswered(status, code) {
  return (error) => {
    assert.equal(error.response?.statusCode, status, `${error}`);
    assert.equal(error.response.headers['iothub-errorcode'], code);
    const body = JSON.parse(error.responseBody);
    assert.match(body.Message, new RegExp(`^ErrorCode:${code};.`));
    assert.equal(typeof body.ExceptionMessage, 'string');
    return true;
  };
}

async function inGroups(items, size, act) {
  for (let start = 0; start < items.length; start += size) {
    await Promise.all(items.slice(start, start + size).map(act));
  }
}

function sorted(properties) {
  return Object.fromEntries(Object.entries(properties).sort());
}

runAll('azure-iot-device', TARGET === 'gateway' ? 'HTTPS, through the gateway' : 'HTTPS');
