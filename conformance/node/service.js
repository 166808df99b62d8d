// azure-iothub: everything that it does over HTTPS.
'use strict';

const assert = require('node:assert/strict');

const { Client, JobClient, Registry } = require('azure-iothub');
const { Client: DeviceClient } = require('azure-iot-device');
const { Mqtt } = require('azure-iot-device-mqtt');

const { eventually, runAll, test } = require('./cases');
const hub = require('./hub');

const registry = Registry.fromConnectionString(hub.SERVICE);
const client = Client.fromConnectionString(hub.SERVICE);
const jobs = JobClient.fromConnectionString(hub.SERVICE);
const newId = () => hub.newId('node-service');
const body = ({ responseBody }) => responseBody;

test('registry', 'a device is created, read, updated and deleted', async () => {
  const deviceId = newId();
  const made = body(await registry.create({ deviceId }));
  assert.equal(made.deviceId, deviceId);
  assert.equal(Buffer.from(made.authentication.symmetricKey.primaryKey, 'base64').length, 32);
  const read = body(await registry.get(deviceId));
  assert.equal(read.generationId, made.generationId);
  assert.equal(read.connectionState, 'Disconnected');
  const updated = body(await registry.update({ ...read, status: 'disabled', statusReason: 'lost' }));
  assert.deepEqual([updated.status, updated.statusReason], ['disabled', 'lost']);
  assert.equal(updated.authentication.symmetricKey.primaryKey, made.authentication.symmetricKey.primaryKey);
  await registry.delete(deviceId);
  await assert.rejects(registry.get(deviceId), { name: 'DeviceNotFoundError' });
});

test('registry', 'a device that is there already, and one that is not', async () => {
  const deviceId = newId();
  await registry.create({ deviceId });
  await assert.rejects(registry.create({ deviceId }), { name: 'DeviceAlreadyExistsError' });
  await assert.rejects(registry.update({ deviceId: newId() }), { name: 'DeviceNotFoundError' });
  await assert.rejects(registry.delete(newId()), { name: 'DeviceNotFoundError' });
});

test('registry', 'keys of the caller are kept', async () => {
  const [primaryKey, secondaryKey] = [1, 2].map((byte) => Buffer.alloc(32, byte).toString('base64'));
  const symmetricKey = { primaryKey, secondaryKey };
  const made = body(await registry.create({ deviceId: newId(), authentication: { type: 'sas', symmetricKey } }));
  assert.deepEqual({ ...made.authentication.symmetricKey }, symmetricKey);
});

test('registry', 'devices by certificate', async () => {
  const x509Thumbprint = { primaryThumbprint: 'A'.repeat(40), secondaryThumbprint: 'B'.repeat(64) };
  const own = body(await registry.create({ deviceId: newId(), authentication: { type: 'selfSigned', x509Thumbprint } }));
  assert.equal(own.authentication.type, 'selfSigned');
  assert.deepEqual({ ...own.authentication.x509Thumbprint }, x509Thumbprint);
  const signed = body(await registry.create({ deviceId: newId(), authentication: { type: 'certificateAuthority' } }));
  assert.equal(signed.authentication.type, 'certificateAuthority');
});

test('registry', 'devices are listed', async () => {
  const deviceId = newId();
  await registry.create({ deviceId });
  assert.ok(body(await registry.list()).some((device) => device.deviceId === deviceId));
});

test('statistics', 'of the registry', async () => {
  await registry.create({ deviceId: newId(), status: 'disabled' });
  const counts = body(await registry.getRegistryStatistics());
  assert.ok(counts.disabledDeviceCount >= 1, JSON.stringify(counts));
  assert.equal(counts.totalDeviceCount, counts.enabledDeviceCount + counts.disabledDeviceCount);
});

test('bulk', 'devices are added, updated and removed', async () => {
  const ids = [newId(), newId(), newId()];
  const added = body(await registry.addDevices(ids.map((deviceId) => ({ deviceId }))));
  assert.equal(added.isSuccessful, true);
  const devices = await Promise.all(ids.map(async (id) => body(await registry.get(id))));
  const disabled = devices.map((device) => ({ ...device, status: 'disabled' }));
  assert.equal(body(await registry.updateDevices(disabled, true)).isSuccessful, true);
  assert.equal(body(await registry.get(ids[1])).status, 'disabled');
  assert.equal(body(await registry.removeDevices(ids.map((deviceId) => ({ deviceId })), true)).isSuccessful, true);
  await assert.rejects(registry.get(ids[0]), { name: 'DeviceNotFoundError' });
});

test('bulk', 'what failed is named, and the rest is done', async () => {
  const [old, fresh] = [newId(), newId()];
  await registry.create({ deviceId: old });
  const error = await registry.addDevices([{ deviceId: old }, { deviceId: fresh }]).then(() => null, (reason) => reason);
  const result = error ? JSON.parse(error.responseBody) : undefined;
  assert.equal(result.isSuccessful, false);
  assert.deepEqual(result.errors.map((one) => one.deviceId), [old]);
  assert.equal(body(await registry.get(fresh)).deviceId, fresh);
});

test('modules', 'are created, read, listed, updated and removed', async () => {
  const deviceId = newId();
  await registry.create({ deviceId });
  await registry.addModule({ deviceId, moduleId: 'one' });
  await registry.addModule({ deviceId, moduleId: 'two', managedBy: 'someone' });
  const listed = body(await registry.getModulesOnDevice(deviceId));
  assert.deepEqual(listed.map(({ moduleId }) => moduleId).sort(), ['one', 'two']);
  const two = body(await registry.getModule(deviceId, 'two'));
  assert.equal(two.managedBy, 'someone');
  assert.equal(body(await registry.updateModule({ ...two, managedBy: 'other' }, true)).managedBy, 'other');
  await registry.removeModule(deviceId, 'one');
  await assert.rejects(registry.getModule(deviceId, 'one'));
  const twin = body(await registry.getModuleTwin(deviceId, 'two'));
  const patched = body(await registry.updateModuleTwin(deviceId, 'two', { tags: { a: 1 } }, twin.etag));
  assert.deepEqual(patched.tags, { a: 1 });
});

test('twins', 'tags and desired properties, by their ETag', async () => {
  const deviceId = newId();
  await registry.create({ deviceId });
  const twin = body(await registry.getTwin(deviceId));
  assert.equal(twin.properties.desired.$version, 1);
  await twin.update({ tags: { site: 'a' }, properties: { desired: { interval: 5 } } });
  assert.deepEqual(twin.tags, { site: 'a' });
  assert.equal(twin.properties.desired.interval, 5);
  assert.notEqual(twin.etag, 'AAAAAAAAAAE=');
  await assert.rejects(registry.updateTwin(deviceId, { tags: { site: 'b' } }, 'AAAAAAAAAAE='), (error) => {
    return error.response.statusCode === 412;
  });
  const forced = body(await registry.updateTwin(deviceId, { tags: { site: null } }, '*'));
  assert.deepEqual(forced.tags, {});
});

test('direct methods', 'are invoked, and say what the device said', async () => {
  const deviceId = newId();
  const device = body(await registry.create({ deviceId }));
  await assert.rejects(client.invokeDeviceMethod(deviceId, { methodName: 'm', payload: 1 }), (error) => {
    return error.response.statusCode === 404 && /404103/.test(error.responseBody);
  });
  await withDevice(device, async (connected) => {
    connected.onDeviceMethod('m', (request, response) => response.send(207, { given: request.payload }));
    const params = { methodName: 'm', payload: { a: 1 }, connectTimeoutInSeconds: 10, responseTimeoutInSeconds: 10 };
    const { result } = await client.invokeDeviceMethod(deviceId, params);
    assert.deepEqual(result, { status: 207, payload: { given: { a: 1 } } });
  });
});

test('queries', 'devices by tags and properties, page by page', async () => {
  const site = newId();
  const ids = Array.from({ length: 5 }, newId);
  for (const [number, deviceId] of ids.entries()) {
    await registry.create({ deviceId });
    await registry.updateTwin(deviceId, { tags: { site, number }, properties: { desired: { even: number % 2 === 0 } } }, '*');
  }
  const query = registry.createQuery(`SELECT * FROM devices WHERE tags.site = '${site}'`, 2);
  const found = [];
  let pages = 0;
  while (query.hasMoreResults) {
    found.push(...(await query.nextAsTwin()).result);
    pages += 1;
  }
  assert.deepEqual(found.map((twin) => twin.deviceId).sort(), [...ids].sort());
  assert.ok(pages >= 3, `${pages} pages`);
  const where = `tags.site = '${site}' AND (properties.desired.even = true AND tags.number > 0 OR tags.number IN [1])`;
  assert.deepEqual(await ask(`SELECT deviceId FROM devices WHERE ${where}`).then((rows) => rows.map((row) => row.deviceId).sort()), [ids[1], ids[2], ids[4]].sort());
  const [count] = await ask(`SELECT COUNT() AS devices FROM devices WHERE tags.site = '${site}' AND IS_DEFINED(tags.number)`);
  assert.equal(count.devices, 5);
});

test('queries', 'modules', async () => {
  const deviceId = newId();
  await registry.create({ deviceId });
  await registry.addModule({ deviceId, moduleId: 'part' });
  const found = await ask(`SELECT * FROM devices.modules WHERE deviceId = '${deviceId}'`);
  assert.deepEqual(found.map(({ moduleId }) => moduleId), ['part']);
});

test('queries', 'what is not understood is refused by name', async () => {
  for (const [text, named] of [
    ['SELECT * FROM nowhere', /FROM/],
    ["SELECT * FROM devices WHERE UPPER(deviceId) = 'A'", /UPPER/],
  ]) {
    await assert.rejects(ask(text), (error) => error.response.statusCode === 400 && named.test(error.responseBody));
  }
});

test('jobs', 'a twin update for all that a query finds', async () => {
  const [site, jobId] = [newId(), newId()];
  const ids = [newId(), newId()];
  for (const deviceId of ids) {
    await registry.create({ deviceId });
    await registry.updateTwin(deviceId, { tags: { site } }, '*');
  }
  const patch = { etag: '*', properties: { desired: { updated: true } } };
  const { jobStatus } = await jobs.scheduleTwinUpdate(jobId, `tags.site = '${site}'`, patch, new Date(), 60);
  assert.equal(jobStatus.jobId, jobId);
  const done = await finished(jobId);
  assert.equal(done.deviceJobStatistics.succeededCount, 2);
  for (const deviceId of ids) {
    assert.equal(body(await registry.getTwin(deviceId)).properties.desired.updated, true);
  }
  const results = await ask(`SELECT * FROM devices.jobs WHERE devices.jobs.jobId = '${jobId}'`);
  assert.deepEqual(results.map(({ deviceId }) => deviceId).sort(), [...ids].sort());
});

test('jobs', 'a direct method for all that a query finds', async () => {
  const [deviceId, jobId] = [newId(), newId()];
  const device = body(await registry.create({ deviceId }));
  await withDevice(device, async (connected) => {
    connected.onDeviceMethod('m', (request, response) => response.send(200, { given: request.payload }));
    await eventually('the device offers methods', () => {
      return client.invokeDeviceMethod(deviceId, { methodName: 'm', payload: 0 }).then(() => true, () => false);
    });
    const params = { methodName: 'm', payload: 1, responseTimeoutInSeconds: 10 };
    await jobs.scheduleDeviceMethod(jobId, `deviceId = '${deviceId}'`, params, new Date(), 60);
    assert.equal((await finished(jobId)).deviceJobStatistics.succeededCount, 1);
  });
});

test('jobs', 'one that waits is listed and cancelled', async () => {
  const [deviceId, jobId] = [newId(), newId()];
  await registry.create({ deviceId });
  const inAnHour = new Date(Date.now() + 3600000);
  await jobs.scheduleTwinUpdate(jobId, `deviceId = '${deviceId}'`, { etag: '*', tags: { a: 1 } }, inAnHour, 60);
  const query = jobs.createQuery('scheduleUpdateTwin', 'scheduled');
  const listed = [];
  while (query.hasMoreResults) listed.push(...(await query.next(query.continuationToken)).result);
  assert.ok(listed.some((job) => job.jobId === jobId), JSON.stringify(listed));
  await jobs.cancelJob(jobId);
  assert.equal((await jobs.getJob(jobId)).jobStatus.status, 'cancelled');
});

test('refused by name', 'configurations and import jobs', async () => {
  for (const act of [
    () => registry.getConfigurations(),
    () => registry.addConfiguration({ id: 'c', content: {}, targetCondition: '*', priority: 1 }),
    () => registry.applyConfigurationContentOnDevice(newId(), { modulesContent: {} }),
    () => registry.exportDevicesToBlob('https://example.com/c?sig=x', true),
  ]) {
    const error = await act().then(() => assert.fail('it was taken'), (reason) => reason);
    assert.equal(error.response?.statusCode, 501, `${error}`);
    assert.match(error.responseBody, /not emulated/i);
  }
});

async function ask(text) {
  const query = registry.createQuery(text);
  const rows = [];
  while (query.hasMoreResults) rows.push(...(await query.next(query.continuationToken)).result);
  return rows;
}

function finished(jobId) {
  return eventually('the job is done', async () => {
    const { jobStatus } = await jobs.getJob(jobId);
    return jobStatus.status === 'completed' && jobStatus;
  }, 30);
}

async function withDevice({ deviceId, authentication }, use) {
  const key = authentication.symmetricKey.primaryKey;
  const connected = DeviceClient.fromConnectionString(new hub.Device(deviceId, { key }).connectionString(), Mqtt);
  await connected.open();
  try {
    return await use(connected);
  } finally {
    await connected.close();
  }
}

runAll('azure-iothub', 'HTTPS');
