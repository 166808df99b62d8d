// azure-iot-device uploads files; whatever its transport is, that goes over HTTPS.
'use strict';

const assert = require('node:assert/strict');
const { Readable } = require('node:stream');

const { BlockBlobClient } = require('@azure/storage-blob');
const { Client } = require('azure-iot-device');
const { Mqtt } = require('azure-iot-device-mqtt');
const { NoRetry } = require('azure-iot-common');

const { eventually, runAll, test } = require('./cases');
const hub = require('./hub');

const newDevice = () => hub.newDevice('node-files');

test('file upload', 'a file in three steps', async () => {
  const device = await newDevice();
  const client = newClient(device);
  const place = await client.getBlobSharedAccessSignature('logs/my file.txt');
  assert.equal(place.blobName, `${device.id}/logs/my file.txt`);
  await new BlockBlobClient(address(place)).upload('some text', 9);
  await client.notifyBlobUploadStatus(place.correlationId, true, 200, 'done');
  const notification = await notificationFor(device);
  assert.equal(notification.blobName, `${device.id}/logs/my file.txt`);
  assert.equal(notification.blobSizeInBytes, 9);
});

test('file upload', 'a large file in blocks', async () => {
  const device = await newDevice();
  const client = newClient(device);
  const place = await client.getBlobSharedAccessSignature('large.bin');
  const bytes = Buffer.alloc(3 * 1024 * 1024, 'tombolo');
  await new BlockBlobClient(address(place)).uploadStream(Readable.from([bytes]), 1024 * 1024, 2);
  await client.notifyBlobUploadStatus(place.correlationId, true, 200, 'done');
  assert.equal((await notificationFor(device)).blobSizeInBytes, bytes.length);
});

test('file upload', 'the old call that does all three', async () => {
  const device = await newDevice();
  await newClient(device).uploadToBlob('old.txt', Readable.from([Buffer.from('old')]), 3);
  assert.equal((await notificationFor(device)).blobName, `${device.id}/old.txt`);
});

test('file upload', 'an upload that failed sends no notification', async () => {
  const device = await newDevice();
  const client = newClient(device);
  const failed = await client.getBlobSharedAccessSignature('failed.txt');
  await client.notifyBlobUploadStatus(failed.correlationId, false, 500, 'no');
  await client.uploadToBlob('then.txt', Readable.from([Buffer.from('then')]), 4);
  assert.equal((await notificationFor(device)).blobName, `${device.id}/then.txt`);
});

test('file upload', 'a correlation id that the hub did not give is refused', async () => {
  const device = await newDevice();
  const client = newClient(device);
  client.setRetryPolicy(new NoRetry());
  await assert.rejects(client.notifyBlobUploadStatus('nothing', true, 200, 'done'), /Bad Request/);
});

test('file upload', 'a blob is not written without the signature', async () => {
  const device = await newDevice();
  const place = await newClient(device).getBlobSharedAccessSignature('a.txt');
  const wrong = address(place).replace(/sig=[^&]{8}/, 'sig=AAAAAAAA');
  await assert.rejects(new BlockBlobClient(wrong).upload('x', 1), { statusCode: 403 });
});

function newClient(device) {
  return Client.fromConnectionString(device.connectionString(), Mqtt);
}

function address({ hostName, containerName, blobName, sasToken }) {
  return `https://${hostName}/${containerName}/${encodeURIComponent(blobName)}${sasToken}`;
}

function notificationFor(device) {
  return eventually('the notification', async () => {
    const all = await hub.ask('GET', '/emulator/file-notifications');
    return all.find(({ deviceId }) => deviceId === device.id);
  });
}

runAll('azure-iot-device', 'HTTPS');
