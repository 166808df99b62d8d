// A table of host names for one process, as /etc/hosts is for a machine: CONFORMANCE_HOSTS=name=address,...
//
// Loaded with --require before anything else. It changes Node's look-up, never the client that is judged.
'use strict';

const dns = require('node:dns');

const addresses = new Map(
  (process.env.CONFORMANCE_HOSTS ?? '').split(',').filter(Boolean).map((entry) => entry.split('=')),
);
const lookup = dns.lookup;

dns.lookup = function (name, options, callback) {
  const address = addresses.get(name);
  if (address === undefined) {
    return lookup.call(dns, name, options, callback);
  }
  const done = callback ?? options;
  const wantsAll = typeof options === 'object' && options.all;
  process.nextTick(() => (wantsAll ? done(null, [{ address, family: 4 }]) : done(null, address, 4)));
};
