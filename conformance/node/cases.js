// Cases that run one after the other; each prints how it went, and leaves a line for the machine.
'use strict';

const fs = require('node:fs');

const LONGEST_CASE_S = 40;
const cases = [];

// A case of a feature.
function test(feature, name, run) {
  cases.push({ feature, name, run });
}

// Runs all. The package and the transport are the column of the table.
async function runAll(name, transport) {
  const client = `${name} ${require(`${name}/package.json`).version}, Node`;
  let failed = 0;
  for (const { feature, name, run } of cases) {
    const began = Date.now();
    let error = null;
    let timer;
    const late = new Promise((_, reject) => {
      timer = setTimeout(() => reject(new Error(`took more than ${LONGEST_CASE_S} s`)), LONGEST_CASE_S * 1000);
    });
    try {
      await Promise.race([run(), late]);
    } catch (reason) {
      failed += 1;
      error = String(reason?.stack ?? reason);
    } finally {
      clearTimeout(timer);
    }
    console.log(`${error ? 'FAILED' : 'ok    '}  ${client}, ${transport}: ${feature}: ${name}`);
    if (error) console.log(`        ${error.split('\n').slice(0, 8).join('\n        ')}`);
    const seconds = (Date.now() - began) / 1000;
    const record = { client, transport, feature, case: name, passed: !error, seconds, error };
    fs.appendFileSync(process.env.CONFORMANCE_RESULTS, `${JSON.stringify(record)}\n`);
  }
  console.log(`${client}, ${transport}: ${cases.length - failed} of ${cases.length} passed`);
  // A client that a failed case left behind must not keep the process alive.
  process.exit(failed === 0 ? 0 : 1);
}

// Waits until `look` gives something true, and gives that.
async function eventually(what, look, seconds = 15) {
  const deadline = Date.now() + seconds * 1000;
  for (;;) {
    const seen = await look();
    if (seen) return seen;
    if (Date.now() > deadline) throw new Error(`not within ${seconds} s: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

// What comes, one after the other, to be waited for.
class Inbox {
  #waiting = [];
  #come = [];

  push(value) {
    const waiter = this.#waiting.shift();
    if (waiter) waiter(value);
    else this.#come.push(value);
  }

  next(what = 'the next') {
    if (this.#come.length > 0) return Promise.resolve(this.#come.shift());
    return new Promise((resolve, reject) => {
      const late = setTimeout(() => reject(new Error(`not within 15 s: ${what}`)), 15000);
      this.#waiting.push((value) => {
        clearTimeout(late);
        resolve(value);
      });
    });
  }
}

module.exports = { Inbox, eventually, runAll, test };
