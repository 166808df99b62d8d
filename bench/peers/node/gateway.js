'use strict';
// The gateway as it is written with fastify and Azure's device SDK: telemetry up, cloud-to-device messages down.
//
// It keeps to what costs nothing: bodies stay bytes, nothing is logged, a bearer token has to be there but is not
// looked up.

const fs = require('node:fs');
const fastify = require('fastify');
const { Client, Message } = require('azure-iot-device');
const { Mqtt } = require('azure-iot-device-mqtt');

const settings = JSON.parse(fs.readFileSync(process.argv[2], 'utf8'));
const ca = fs.readFileSync(settings.hub.caFile, 'utf8');

const app = fastify({
  https: { cert: fs.readFileSync(settings.certificateFile), key: fs.readFileSync(settings.keyFile) },
});
app.removeAllContentTypeParsers();
app.addContentTypeParser('*', { parseAs: 'buffer' }, (request, body, done) => done(null, body));

app.addHook('onRequest', (request, reply, done) => {
  const isBearer = request.headers.authorization?.startsWith('Bearer ');
  if (isBearer) done();
  else reply.code(401).send();
});

app.post('/devices/:id/messages/events', async (request, reply) => {
  const { client } = await session(request.params.id);
  await client.sendEvent(new Message(request.body));
  return reply.code(204).header('tombolo-delivery', 'hub').send();
});

app.get('/devices/:id/messages/devicebound', async (request, reply) => {
  const { waiting } = await session(request.params.id);
  const next = waiting.entries().next().value;
  if (!next) return reply.code(204).send();
  const [lock, message] = next;
  return reply.header('etag', `"${lock}"`).type('application/octet-stream').send(message.getData());
});

app.delete('/devices/:id/messages/devicebound/:lock', async (request, reply) => {
  const { client, waiting } = await session(request.params.id);
  const message = waiting.get(request.params.lock);
  if (!message) return reply.code(412).send();
  waiting.delete(request.params.lock);
  await client.complete(message);
  return reply.code(204).send();
});

const sessions = new Map();

// One client of the SDK for each device, opened by the device's first request.
function session(id) {
  let opening = sessions.get(id);
  if (!opening) {
    opening = open(id);
    sessions.set(id, opening);
  }
  return opening;
}

let lastLock = 0;

async function open(id) {
  // With a gateway's name in the connection string the SDK connects to that address, and names the hub to it.
  const client = Client.fromConnectionString(
    `HostName=${settings.hub.name};GatewayHostName=${settings.hub.address};DeviceId=${id};SharedAccessKey=${settings.keys[id]}`,
    Mqtt,
  );
  await client.setOptions({ ca });
  await client.open();
  const waiting = new Map();
  client.on('message', (message) => waiting.set(String(++lastLock), message));
  return { client, waiting };
}

app.listen(settings.listen).catch((error) => {
  console.error(error);
  process.exit(1);
});
