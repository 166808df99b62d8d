// can_listen.js PORT ADDRESS...: says why this process cannot listen there, if it cannot.
'use strict';

const net = require('node:net');

const REASONS = {
  EACCES: (at) => `this user may not listen on ${at} (sysctl net.ipv4.ip_unprivileged_port_start=443)`,
  EADDRINUSE: (at) => `something else listens on ${at}`,
  EADDRNOTAVAIL: (at) => `this machine has no address for ${at} (on macOS: ifconfig lo0 alias)`,
};

function listen(address, port) {
  return new Promise((resolve, reject) => {
    const server = net.createServer();
    server.once('error', reject);
    server.listen(port, address, () => server.close(resolve));
  });
}

async function main([port, ...addresses]) {
  for (const address of addresses) {
    try {
      await listen(address, Number(port));
    } catch (error) {
      const reason = REASONS[error.code] ?? ((at) => `cannot listen on ${at}: ${error.message}`);
      console.log(reason(`${address}:${port}`));
      process.exitCode = 1;
      return;
    }
  }
}

main(process.argv.slice(2));
