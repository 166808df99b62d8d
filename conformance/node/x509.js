// azure-iot-device as a device that has a certificate: x509.js mqtt | ws | http. Its modules can have none.
'use strict';

const assert = require('node:assert/strict');

const { Client, Message } = require('azure-iot-device');
const { Http } = require('azure-iot-device-http');
const { Mqtt, MqttWs } = require('azure-iot-device-mqtt');

const { authority, certificate } = require('./certificates');
const { runAll, test } = require('./cases');
const hub = require('./hub');

const [, , kind] = process.argv;
const [Transport, transport] = {
  mqtt: [Mqtt, 'MQTT'],
  ws: [MqttWs, 'MQTT over WebSocket'],
  http: [Http, 'HTTPS'],
}[kind];
const suite = `node-x509-${kind}`;

test('X.509', 'a certificate by its thumbprint, the first and the second', async () => {
  const [first, second] = [certificate(`${suite}-first`), certificate(`${suite}-second`)];
  const device = await hub.newDevice(suite, selfSigned(first.thumbprint, second.thumbprint));
  for (const { options } of [first, second]) await sends(device, options);
});

test('X.509', 'a certificate that the hub does not know is refused', async () => {
  const device = await hub.newDevice(suite, selfSigned(certificate(`${suite}-known`).thumbprint));
  await refused(device, certificate(`${suite}-unknown`).options);
});

test('X.509', 'a certificate of an authority that the hub trusts', async () => {
  const device = await hub.newDevice(suite, { type: 'certificateAuthority' });
  const issuer = await authority(suite);
  await sends(device, certificate(device.id, issuer).options);
});

test('X.509', 'a certificate of another device, and of another authority, are refused', async () => {
  const device = await hub.newDevice(suite, { type: 'certificateAuthority' });
  await refused(device, certificate(`${device.id}-other`, await authority(suite)).options);
  await refused(device, certificate(device.id, certificate(`${suite}-strange-ca`).name).options);
});

test('X.509', 'a twin says how its device proves itself', async () => {
  const { thumbprint } = certificate(`${suite}-shown`);
  const device = await hub.newDevice(suite, selfSigned(thumbprint));
  const twin = await device.twin();
  assert.equal(twin.authenticationType, 'selfSigned');
  assert.equal(twin.x509Thumbprint.primaryThumbprint, thumbprint);
});

function selfSigned(primaryThumbprint, secondaryThumbprint = primaryThumbprint) {
  return { type: 'selfSigned', x509Thumbprint: { primaryThumbprint, secondaryThumbprint } };
}

async function sends(device, options) {
  await withClient(device, options, (client) => client.sendEvent(new Message('x')));
  const [record] = await device.telemetry(1);
  assert.equal(record.body, 'x');
}

function refused(device, options) {
  return assert.rejects(
    withClient(device, options, (client) => client.sendEvent(new Message('never'))),
    /Unauthorized|Not authorized/,
  );
}

async function withClient(device, options, use) {
  const client = Client.fromConnectionString(`HostName=${hub.NAME};DeviceId=${device.id};x509=true`, Transport);
  const set = client.setOptions(options);
  // Over HTTPS it is done at once, and never calls back.
  if (kind !== 'http') await set;
  try {
    await client.open();
    return await use(client);
  } finally {
    await client.close().catch(() => {});
  }
}

runAll('azure-iot-device', transport);
