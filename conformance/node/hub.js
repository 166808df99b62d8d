// The cloud side, as the emulator gives it: what came up, what shall go down, what became of it.
'use strict';

const crypto = require('node:crypto');
const fs = require('node:fs');
const https = require('node:https');

const { eventually } = require('./cases');

const {
  CONFORMANCE_HUB: NAME,
  CONFORMANCE_HUB_TOKEN_FILE: TOKEN_FILE,
  CONFORMANCE_SERVICE_STRING_FILE: SERVICE_STRING_FILE,
} = process.env;
const bearer = fs.readFileSync(TOKEN_FILE, 'utf8').trim();
// What opens the service API.
const SERVICE = fs.readFileSync(SERVICE_STRING_FILE, 'utf8').trim();
let made = 0;

function request(method, path, { headers = {}, body = '', host = NAME } = {}) {
  return new Promise((resolve, reject) => {
    const options = { host, method, path, headers: { authorization: `Bearer ${bearer}`, ...headers } };
    const sent = https.request(options, (answer) => {
      const chunks = [];
      answer.on('data', (chunk) => chunks.push(chunk));
      answer.on('error', reject);
      answer.on('end', () => {
        const text = Buffer.concat(chunks).toString();
        if (answer.statusCode < 300) {
          resolve({ headers: answer.headers, text });
        } else {
          const refusal = new Error(`${method} ${path}: ${answer.statusCode} ${text}`);
          reject(Object.assign(refusal, { status: answer.statusCode, text }));
        }
      });
    });
    sent.on('error', reject);
    sent.end(body);
  });
}

async function ask(method, path, body, headers = {}) {
  const options = { headers: { 'content-type': 'application/json', ...headers } };
  if (body !== undefined) options.body = JSON.stringify(body);
  const { text } = await request(method, path, options);
  return text === '' ? undefined : JSON.parse(text);
}

// A device, or a module of one, and what the cloud side does with it.
class Device {
  constructor(id, { moduleId, key, mark = 1 } = {}) {
    Object.assign(this, { id, moduleId, key, mark });
    this.path = `/devices/${id}${moduleId ? `/modules/${moduleId}` : ''}`;
    this.twinPath = this.path.replace('/devices/', '/twins/');
  }

  connectionString({ host = NAME, key = this.key } = {}) {
    const module = this.moduleId ? `;ModuleId=${this.moduleId}` : '';
    return `HostName=${host};DeviceId=${this.id}${module};SharedAccessKey=${key}`;
  }

  // A shared access signature as Azure's documentation makes it.
  token(seconds, { host = NAME, key = this.key } = {}) {
    const resource = encodeURIComponent(`${host}${this.path}`);
    const end = Math.floor(Date.now() / 1000) + seconds;
    const hmac = crypto.createHmac('sha256', Buffer.from(key, 'base64'));
    const signature = encodeURIComponent(hmac.update(`${resource}\n${end}`).digest('base64'));
    return `SharedAccessSignature sr=${resource}&sig=${signature}&se=${end}`;
  }

  // The next `count` records of it; fails if they do not come in 15 s. Any that are too many are given as well.
  async telemetry(count) {
    const records = [];
    const deadline = Date.now() + 15000;
    while (records.length < count) {
      if (Date.now() > deadline) throw new Error(`${records.length} of ${count} messages came to the hub in 15 s`);
      const { headers, text } = await request('GET', `/emulator/telemetry?from=${this.mark}&wait=5`);
      const all = text.split('\n').filter(Boolean).map((line) => JSON.parse(line));
      records.push(...all.filter((record) => this.#sent(record)));
      this.mark = Number(headers['emulator-next']);
    }
    return records;
  }

  #sent({ deviceId, moduleId }) {
    return deviceId === this.id && (moduleId ?? undefined) === this.moduleId;
  }

  // Takes no notice of what has come so far.
  async forget() {
    this.mark = await telemetryMark();
  }

  // Sends a cloud-to-device message.
  send(body, headers = {}) {
    return request('POST', `/emulator/devices/${this.id}/messages`, { headers, body });
  }

  // Waits until the hub tells the sender of a message what became of it.
  feedback(messageId) {
    return eventually(`feedback for ${messageId}`, async () => {
      const records = await ask('GET', '/emulator/feedback');
      return records.find((record) => record.originalMessageId === messageId && record.deviceId === this.id)
        ?.statusCode;
    });
  }

  // Waits until the hub has no message left for it.
  emptied() {
    const isEmpty = async () => (await ask('GET', this.path)).cloudToDeviceMessageCount === 0;
    return eventually('the queue of the device is empty', isEmpty);
  }

  twin() {
    return ask('GET', this.twinPath);
  }

  desire(patch) {
    return ask('PATCH', this.twinPath, { properties: { desired: patch } });
  }

  replaceDesired(desired) {
    return ask('PUT', this.twinPath, { properties: { desired } });
  }

  // `payload` in the options if it shall have one.
  invoke(methodName, { connect = 0, response = 30, ...payload } = {}) {
    const request = { methodName, connectTimeoutInSeconds: connect, responseTimeoutInSeconds: response, ...payload };
    return ask('POST', `${this.twinPath}/methods`, request);
  }

  async isConnected() {
    return (await this.twin()).connectionState === 'Connected';
  }

  // Lets something go wrong for this device, once.
  fault(kind, details = {}) {
    return ask('POST', '/emulator/faults', { device: this.id, times: 1, fault: { kind, ...details } });
  }

  // Cuts its connection.
  drop() {
    return ask('POST', '/emulator/faults', { device: this.id, fault: { kind: 'drop-connection' } });
  }
}

// A device id that no other suite and no other case has.
function newId(suite) {
  made += 1;
  return `${suite}-${made}`;
}

// A device with keys of its own, or with the given authentication.
async function newDevice(suite, authentication) {
  const id = newId(suite);
  return put(new Device(id), { deviceId: id }, authentication);
}

async function newModule(suite, authentication, moduleId = 'part') {
  const { id } = await newDevice(suite);
  return put(new Device(id, { moduleId }), { deviceId: id, moduleId }, authentication);
}

async function put(device, body, authentication) {
  const made = await ask('PUT', device.path, authentication ? { ...body, authentication } : body);
  device.key = made.authentication.symmetricKey?.primaryKey;
  await device.forget();
  return device;
}

// Where the telemetry ends that has come so far.
async function telemetryMark() {
  let mark = 1;
  for (;;) {
    const { headers } = await request('GET', `/emulator/telemetry?from=${mark}`);
    if (Number(headers['emulator-next']) === mark) return mark;
    mark = Number(headers['emulator-next']);
  }
}

module.exports = { Device, NAME, SERVICE, ask, newDevice, newId, newModule, request };
