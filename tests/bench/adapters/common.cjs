// What the adapters for Node share: the protocol of common.py.
const DSN = process.env.BENCH_DSN;
const OPTIONS = JSON.parse(process.env.BENCH_OPTIONS || "{}");
const LOG_FROM = OPTIONS.log ?? Infinity;
const monotonic = () => Number(process.hrtime.bigint()) / 1e9; // CLOCK_MONOTONIC
const say = (line, then) => process.stdout.write(JSON.stringify(line) + "\n", then);
const sleep = (seconds) => new Promise((done) => setTimeout(done, Math.max(0, seconds) * 1000));
const range = (low, high) => Array.from({ length: high - low }, (_, i) => low + i);

const meter = { count: 0, first: null, last: null };
const log = [];
function hit(number) {
  meter.last = monotonic();
  if (meter.first === null) meter.first = meter.last;
  meter.count++;
  if (number >= LOG_FROM) log.push([number, meter.last]);
}

const commands = {
  setup: (adapter) => adapter.setup(),
  async bulk(adapter, jobs, batch) {
    await adapter.open();
    const started = monotonic();
    for (let low = 0; low < jobs; low += batch) await adapter.many(low, Math.min(jobs, low + batch));
    say({ seconds: monotonic() - started });
  },
  async tick(adapter, count, pause, first) {
    await adapter.open();
    const log = [];
    const started = monotonic();
    for (let step = 0; step < count; step++) {
      await sleep(started + step * pause - monotonic());
      await adapter.one(first + step);
      log.push([first + step, monotonic()]);
    }
    say({ log });
  },
  async steady(adapter, rate, seconds, pause) {
    await adapter.open();
    let added = 0;
    let passed;
    const started = monotonic();
    while ((passed = monotonic() - started) < seconds) {
      const due = Math.min(Math.floor(passed * rate) - added, Math.max(1, Math.floor(rate)));
      if (due > 0) {
        await adapter.many(added, added + due);
        added += due;
      }
      await sleep(Math.max(0.001, pause - (monotonic() - started - passed)));
    }
    say({ added, seconds: monotonic() - started });
  },
  async worker(adapter) {
    say({ ready: true });
    let seen = 0;
    setInterval(() => {
      if (meter.count !== seen) {
        seen = meter.count;
        say(meter);
      }
    }, 1000 * OPTIONS.report);
    require("readline").createInterface({ input: process.stdin }).on("line", (line) => {
      if (line.trim() === "stop") say({ ...meter, log }, () => process.exit(0));
      else adapter.work(hit);
    });
    await new Promise(() => {});
  },
};

async function main(adapter) {
  const [command, ...words] = process.argv.slice(2);
  await commands[command](adapter, ...words.map(Number));
  process.stdout.write("", () => process.exit(0));
}

module.exports = { DSN, OPTIONS, main, range };
