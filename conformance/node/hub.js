// The cloud side, as the emulator gives it: what came up, what shall go down, what became of it.
'use strict';

const fs = require('node:fs');
const https = require('node:https');

const { CONFORMANCE_HUB: HUB, CONFORMANCE_HUB_TOKEN_FILE: TOKEN_FILE } = process.env;
const token = fs.readFileSync(TOKEN_FILE, 'utf8').trim();

function request(method, path, { headers = {}, body = '' } = {}) {
  return new Promise((resolve, reject) => {
    const options = { host: HUB, method, path, headers: { authorization: `Bearer ${token}`, ...headers } };
    const sent = https.request(options, (answer) => {
      const chunks = [];
      answer.on('data', (chunk) => chunks.push(chunk));
      answer.on('error', reject);
      answer.on('end', () => {
        const text = Buffer.concat(chunks).toString();
        if (answer.statusCode === 200) {
          resolve({ headers: answer.headers, text });
        } else {
          reject(new Error(`${method} ${path}: ${answer.statusCode} ${text}`));
        }
      });
    });
    sent.on('error', reject);
    sent.end(body);
  });
}

// Where the telemetry ends that has come so far.
async function telemetryMark() {
  let next = 1;
  for (;;) {
    const { headers } = await request('GET', `/emulator/telemetry?from=${next}`);
    if (Number(headers['emulator-next']) === next) return next;
    next = Number(headers['emulator-next']);
  }
}

// The next `count` records from a mark on; fails if they do not come in 15 s. Any that are too many are given as well.
async function telemetry(mark, count) {
  const records = [];
  const deadline = Date.now() + 15000;
  let next = mark;
  while (records.length < count) {
    if (Date.now() > deadline) throw new Error(`${records.length} of ${count} messages came to the hub in 15 s`);
    const { headers, text } = await request('GET', `/emulator/telemetry?from=${next}&wait=5`);
    records.push(...text.split('\n').filter(Boolean).map((line) => JSON.parse(line)));
    next = Number(headers['emulator-next']);
  }
  return records;
}

// Sends a cloud-to-device message.
function send(device, body, headers = {}) {
  return request('POST', `/emulator/devices/${device}/messages`, { headers, body });
}

// Waits until the hub tells the sender of a message what became of it.
function feedback(messageId) {
  return eventually(`feedback for ${messageId}`, async () => {
    const records = JSON.parse((await request('GET', '/emulator/feedback')).text);
    return records.find((record) => record.originalMessageId === messageId)?.statusCode;
  });
}

// Waits until the hub has no message left for the device.
function emptied(device) {
  return eventually('the queue of the device is empty', async () => {
    const { text } = await request('GET', `/devices/${device}`);
    return JSON.parse(text).cloudToDeviceMessageCount === 0;
  });
}

async function eventually(what, look) {
  const deadline = Date.now() + 15000;
  for (;;) {
    const seen = await look();
    if (seen) return seen;
    if (Date.now() > deadline) throw new Error(`not within 15 s: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

module.exports = { emptied, feedback, send, telemetry, telemetryMark };
