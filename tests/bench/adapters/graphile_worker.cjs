// graphile-worker. Options: preset, for its worker.
const { DSN, OPTIONS, main, range } = require("./common.cjs");
const { Logger, makeWorkerUtils, run, runMigrations } = require("graphile-worker");
const logger = new Logger(() => () => {});
let utils;

main({
  setup: () => runMigrations({ connectionString: DSN, logger }),
  async open() {
    utils = await makeWorkerUtils({ connectionString: DSN, maxPoolSize: 1, logger });
  },
  one: (n) => utils.addJob("noop", { n }),
  many: (low, high) =>
    utils.addJobs(range(low, high).map((n) => ({ identifier: "noop", payload: { n } }))),
  async work(hit) {
    await run({
      connectionString: DSN,
      logger,
      noHandleSignals: true,
      taskList: { noop: async (payload) => hit(payload.n) },
      ...(OPTIONS.preset ? { preset: { worker: OPTIONS.preset } } : {}),
    });
  },
});
