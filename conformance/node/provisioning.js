// azure-iot-provisioning-device registers, and azure-iot-device goes where it is sent: provisioning.js mqtt | ws | http.
'use strict';

const assert = require('node:assert/strict');
const crypto = require('node:crypto');
const fs = require('node:fs');

const { Client, Message } = require('azure-iot-device');
const { Mqtt: DeviceMqtt, MqttWs: DeviceMqttWs } = require('azure-iot-device-mqtt');
const { ProvisioningDeviceClient } = require('azure-iot-provisioning-device');
const { Http } = require('azure-iot-provisioning-device-http');
const { Mqtt, MqttWs } = require('azure-iot-provisioning-device-mqtt');
const { ProvisioningServiceClient } = require('azure-iot-provisioning-service');
const { SymmetricKeySecurityClient } = require('azure-iot-security-symmetric-key');
const { X509Security } = require('azure-iot-security-x509');

const { certificate } = require('./certificates');
const { runAll, test } = require('./cases');
const hub = require('./hub');

const { CONFORMANCE_DPS_STRING_FILE: STRING_FILE, CONFORMANCE_HUBS, CONFORMANCE_ID_SCOPE: SCOPE } = process.env;
const SERVICE = fs.readFileSync(STRING_FILE, 'utf8').trim();
const [, HOST] = /HostName=([^;]+)/.exec(SERVICE);
const HUBS = CONFORMANCE_HUBS.split(',');
const [, , kind] = process.argv;
const [Transport, DeviceTransport, transport] = {
  mqtt: [Mqtt, DeviceMqtt, 'MQTT'],
  ws: [MqttWs, DeviceMqttWs, 'MQTT over WebSocket'],
  http: [Http, DeviceMqtt, 'HTTPS'],
}[kind];
const operator = ProvisioningServiceClient.fromConnectionString(SERVICE);
const newId = () => hub.newId(`node-dps-${kind}`);
const newKey = () => crypto.randomBytes(32).toString('base64');

test('provisioning', 'an individual enrollment by key', async () => {
  const [registrationId, key] = [newId(), newKey()];
  const initialTwin = { tags: { site: 'a' }, properties: { desired: { interval: 5 } } };
  await individual(registrationId, byKey(key), { allocationPolicy: 'static', iotHubs: [hub.NAME], initialTwin });
  assert.equal(await assigned(registrationId, withKey(registrationId, key), { model: 'm' }), hub.NAME);
  const device = new hub.Device(registrationId, { key });
  await device.forget();
  await sends(hub.NAME, registrationId, { key });
  assert.equal((await device.telemetry(1))[0].body, 'hello');
  const twin = await device.twin();
  assert.deepEqual([twin.tags, twin.properties.desired.interval], [{ site: 'a' }, 5]);
});

test('provisioning', 'a device id of the enrollment\'s own', async () => {
  const [registrationId, deviceId, key] = [newId(), newId(), newKey()];
  await individual(registrationId, byKey(key), { deviceId });
  await sends(await assigned(deviceId, withKey(registrationId, key)), deviceId, { key });
});

test('provisioning', 'a group by a derived key', async () => {
  const key = newKey();
  await group(newId(), byKey(key));
  for (const registrationId of [newId(), newId()]) {
    const hmac = crypto.createHmac('sha256', Buffer.from(key, 'base64'));
    const own = hmac.update(registrationId).digest('base64');
    await sends(await assigned(registrationId, withKey(registrationId, own)), registrationId, { key: own });
  }
});

test('provisioning', 'an individual enrollment by certificate', async () => {
  const registrationId = newId();
  const { options, pem } = certificate(registrationId);
  const clientCertificates = { primary: { certificate: pem } };
  await individual(registrationId, { type: 'x509', x509: { clientCertificates } });
  const hubName = await assigned(registrationId, new X509Security(registrationId, options));
  await sends(hubName, registrationId, { certificate: options });
});

test('provisioning', 'a group by an authority that signed', async () => {
  const [groupId, registrationId] = [newId(), newId()];
  const authority = certificate(`${groupId}-ca`);
  const signingCertificates = { primary: { certificate: authority.pem } };
  await group(groupId, { type: 'x509', x509: { signingCertificates } });
  const { options } = certificate(registrationId, authority.name);
  assert.ok(HUBS.includes(await assigned(registrationId, new X509Security(registrationId, options))));
});

test('provisioning', 'to the one and to the other hub', async () => {
  for (const hubName of HUBS) {
    const [registrationId, key] = [newId(), newKey()];
    await individual(registrationId, byKey(key), { allocationPolicy: 'static', iotHubs: [hubName] });
    assert.equal(await assigned(registrationId, withKey(registrationId, key)), hubName);
    await sends(hubName, registrationId, { key });
  }
});

test('provisioning', 'who registers again goes where it was sent', async () => {
  const [registrationId, key] = [newId(), newKey()];
  await individual(registrationId, byKey(key));
  const first = await assigned(registrationId, withKey(registrationId, key));
  assert.equal(await assigned(registrationId, withKey(registrationId, key)), first);
});

test('provisioning', 'a wrong key, an unknown registration and a disabled enrollment are refused', async () => {
  const [known, disabled, key] = [newId(), newId(), newKey()];
  await individual(known, byKey(key));
  await individual(disabled, byKey(key), { provisioningStatus: 'disabled' });
  for (const [registrationId, tried] of [[known, newKey()], [newId(), key], [disabled, key]]) {
    await assert.rejects(assigned(registrationId, withKey(registrationId, tried)), registrationId);
  }
});

function individual(registrationId, attestation, more = {}) {
  return operator.createOrUpdateIndividualEnrollment({ registrationId, attestation, ...more });
}

function group(enrollmentGroupId, attestation, more = {}) {
  return operator.createOrUpdateEnrollmentGroup({ enrollmentGroupId, attestation, ...more });
}

function byKey(primaryKey) {
  return { type: 'symmetricKey', symmetricKey: { primaryKey, secondaryKey: newKey() } };
}

function withKey(registrationId, key) {
  return new SymmetricKeySecurityClient(registrationId, key);
}

// The hub that the registration names.
async function assigned(deviceId, security, payload) {
  const client = ProvisioningDeviceClient.create(HOST, SCOPE, new Transport(), security);
  if (payload) client.setProvisioningPayload(payload);
  const result = await client.register();
  assert.equal(result.status, 'assigned');
  assert.equal(result.deviceId, deviceId);
  return result.assignedHub;
}

// The device is known where it was sent.
async function sends(hubName, deviceId, { key, certificate: options }) {
  const proof = options ? 'x509=true' : `SharedAccessKey=${key}`;
  const client = Client.fromConnectionString(`HostName=${hubName};DeviceId=${deviceId};${proof}`, DeviceTransport);
  if (options) await client.setOptions(options);
  await client.open();
  try {
    await client.sendEvent(new Message('hello'));
  } finally {
    await client.close();
  }
}

runAll('azure-iot-provisioning-device', transport);
