// Certificates for devices, made by openssl.
'use strict';

const { execFileSync } = require('node:child_process');
const fs = require('node:fs');
const path = require('node:path');

const hub = require('./hub');

const { CONFORMANCE_CERTIFICATES: FOLDER } = process.env;
const SCRIPT = path.join(__dirname, '..', 'certificate');

// A certificate of its own, or one that is signed by another: as the SDK takes it, and its thumbprint.
function certificate(name, issuer) {
  const thumbprint = execFileSync(SCRIPT, [FOLDER, name, ...(issuer ? [issuer] : [])], { encoding: 'utf8' }).trim();
  const [cert, key] = ['pem', 'key'].map((end) => fs.readFileSync(path.join(FOLDER, `${name}.${end}`), 'utf8'));
  return { name, options: { cert, key }, pem: cert, thumbprint };
}

// The name of an authority that the hub trusts.
const authorities = new Map();
async function authority(suite) {
  if (!authorities.has(suite)) {
    const { name, pem } = certificate(`${suite}-ca`);
    await hub.request('POST', '/emulator/certificates', { body: pem });
    authorities.set(suite, name);
  }
  return authorities.get(suite);
}

module.exports = { authority, certificate };
