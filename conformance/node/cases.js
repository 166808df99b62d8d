// Cases that run one after the other; each prints how it went.
'use strict';

const cases = [];

function test(name, run) {
  cases.push({ name, run });
}

async function runAll(title) {
  let failed = 0;
  for (const { name, run } of cases) {
    let timer;
    const late = new Promise((_, reject) => {
      timer = setTimeout(() => reject(new Error('took more than 40 s')), 40000);
    });
    try {
      await Promise.race([run(), late]);
      console.log(`ok      ${title}: ${name}`);
    } catch (error) {
      failed += 1;
      console.log(`failed  ${title}: ${name}`);
      console.log(`        ${String(error.stack ?? error).split('\n').slice(0, 6).join('\n        ')}`);
    } finally {
      clearTimeout(timer);
    }
  }
  console.log(`${title}: ${cases.length - failed} of ${cases.length} passed`);
  // A client that a failed case left behind must not keep the process alive.
  process.exit(failed === 0 ? 0 : 1);
}

module.exports = { runAll, test };
