// azure-iot-provisioning-service: enrollments, groups and registrations, as an operator sees them.
'use strict';

const assert = require('node:assert/strict');
const crypto = require('node:crypto');
const fs = require('node:fs');

const { ProvisioningServiceClient } = require('azure-iot-provisioning-service');

const { runAll, test } = require('./cases');
const hub = require('./hub');

const SERVICE = fs.readFileSync(process.env.CONFORMANCE_DPS_STRING_FILE, 'utf8').trim();
const operator = ProvisioningServiceClient.fromConnectionString(SERVICE);
const newId = () => hub.newId('node-enrollments');
const newKey = () => crypto.randomBytes(32).toString('base64');
const byKey = () => ({ type: 'symmetricKey', symmetricKey: { primaryKey: newKey(), secondaryKey: newKey() } });
const body = ({ responseBody }) => responseBody;

test('enrollments', 'one is created, read, updated by its ETag, and deleted', async () => {
  const registrationId = newId();
  const enrollment = { registrationId, attestation: byKey(), provisioningStatus: 'enabled' };
  const made = body(await operator.createOrUpdateIndividualEnrollment(enrollment));
  assert.equal(made.registrationId, registrationId);
  const read = body(await operator.getIndividualEnrollment(registrationId));
  assert.equal(read.etag, made.etag);
  const updated = body(await operator.createOrUpdateIndividualEnrollment({ ...read, provisioningStatus: 'disabled' }));
  assert.equal(updated.provisioningStatus, 'disabled');
  await assert.rejects(operator.createOrUpdateIndividualEnrollment(read), is(412));
  await operator.deleteIndividualEnrollment(registrationId);
  await assert.rejects(operator.getIndividualEnrollment(registrationId), is(404));
});

test('enrollments', 'keys are made where none are given, and shown to who asks for them', async () => {
  const registrationId = newId();
  await operator.createOrUpdateIndividualEnrollment({ registrationId, attestation: { type: 'symmetricKey' } });
  const mechanism = body(await operator.getIndividualEnrollmentAttestationMechanism(registrationId));
  assert.equal(mechanism.type, 'symmetricKey');
  assert.ok(Buffer.from(mechanism.symmetricKey.primaryKey, 'base64').length >= 16);
});

test('enrollments', 'they are found, page by page', async () => {
  const ids = [newId(), newId(), newId()];
  for (const registrationId of ids) {
    await operator.createOrUpdateIndividualEnrollment({ registrationId, attestation: byKey() });
  }
  const found = await all(operator.createIndividualEnrollmentQuery({ query: '*' }, 2), 'registrationId');
  assert.ok(ids.every((id) => found.includes(id)), `${found}`);
});

test('enrollments', 'many in one request', async () => {
  const ids = [newId(), newId()];
  const enrollments = ids.map((registrationId) => ({ registrationId, attestation: byKey() }));
  const made = await bulk({ mode: 'create', enrollments });
  assert.equal(made.isSuccessful, true);
  const again = await bulk({ mode: 'create', enrollments: enrollments.slice(1) });
  assert.deepEqual([again.isSuccessful, again.errors.map(({ registrationId }) => registrationId)], [false, [ids[1]]]);
  const gone = await bulk({ mode: 'delete', enrollments });
  assert.equal(gone.isSuccessful, true);
});

test('enrollments', 'groups', async () => {
  const enrollmentGroupId = newId();
  const made = body(await operator.createOrUpdateEnrollmentGroup({ enrollmentGroupId, attestation: byKey() }));
  assert.equal(body(await operator.getEnrollmentGroup(enrollmentGroupId)).etag, made.etag);
  const found = await all(operator.createEnrollmentGroupQuery({ query: '*' }, 100), 'enrollmentGroupId');
  assert.ok(found.includes(enrollmentGroupId));
  await operator.deleteEnrollmentGroup(enrollmentGroupId);
  await assert.rejects(operator.getEnrollmentGroup(enrollmentGroupId), is(404));
});

test('enrollments', 'a registration that nobody made is not there', async () => {
  const registrationId = newId();
  await operator.createOrUpdateIndividualEnrollment({ registrationId, attestation: byKey() });
  await assert.rejects(operator.getDeviceRegistrationState(registrationId), is(404));
});

// One property of all that a query finds.
async function all(query, name) {
  const found = [];
  do {
    found.push(...body(await query.next(query.continuationToken)).map((one) => one[name]));
  } while (query.hasMoreResults);
  return found;
}

// Its promise is never settled.
function bulk(operation) {
  return new Promise((resolve, reject) => {
    operator.runBulkEnrollmentOperation(operation, (error, result) => (error ? reject(error) : resolve(result)));
  });
}

function is(status) {
  return (error) => {
    assert.equal(error.response?.statusCode, status, `${error}`);
    return true;
  };
}

runAll('azure-iot-provisioning-service', 'HTTPS');
