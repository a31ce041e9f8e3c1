// pg-boss. Options: queue (of createQueue), boss (of the constructor), work (of work).
const { DSN, OPTIONS, main, range } = require("./common.cjs");
const { PgBoss } = require("pg-boss");
const QUEUE = "noop";
let boss;

async function start(options) {
  boss = new PgBoss({ connectionString: DSN, ...options });
  boss.on("error", (error) => console.error(error));
  await boss.start();
}

main({
  async setup() {
    await start({});
    await boss.createQueue(QUEUE, OPTIONS.queue || {});
  },
  open: () => start({ max: 1, supervise: false, schedule: false }),
  one: (n) => boss.send(QUEUE, { n }),
  many: (low, high) => boss.insert(QUEUE, range(low, high).map((n) => ({ data: { n } }))),
  async work(hit) {
    await start(OPTIONS.boss || {});
    await boss.work(QUEUE, OPTIONS.work || {}, async (jobs) => {
      for (const job of jobs) hit(job.data.n);
    });
  },
});
