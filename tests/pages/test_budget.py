"""What a job costs: queries, commits, pages and WAL, against budgets kept in budget.json.

Counted, not timed, so that a busy machine changes nothing. After a change that is worth what it
costs, or that made a job cheaper, `APP_JOBS_BUDGET=write make pages ARGS='-k budget'` writes new
budgets, to be committed with it.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import psycopg

from app_jobs import JobContext, Tasks, Worker

BUDGETS = Path(__file__).with_name("budget.json")
# How much more is let pass: a page may split here or there; a worker's batches depend on the clock.
MORE = {"worker": 1.5, "": 1.05}
JOBS = 5_000
BATCH = 500
ROUNDS = 10

Connection = psycopg.Connection[tuple[Any, ...]]

HELD = "select coalesce(array_agg(j.id), '{}') from app_jobs.jobs as j where j.locked_by = 'w'"
ADD_JOBS = (
    "select count(*) from app_jobs.add_jobs('noop', array(select json_build_object('n', n)"
    " from generate_series(1, {jobs}) as n))"
)
BATCHES = {
    "add_jobs": ADD_JOBS,
    "get_jobs": "select * from app_jobs.get_jobs('w', array['noop'], '1 hour', {jobs})",
    "complete_jobs": "select app_jobs.complete_jobs('w', array{held})",
}
SINGLES = {
    "add_job": "select app_jobs.add_job(identifier => 'noop')",
    "get_job": "select app_jobs.get_job('w', array['noop'], '1 hour')",
    "complete_job": "select app_jobs.complete_job('w', (array{held})[1])",
}
WAL_AT = "select pg_current_wal_insert_lsn()"
# What the work itself writes: no vacuum, no images of pages (the servers of tests make none).
WAL = """
    select
        sum(w.size), sum(w.count) filter (where w.type = 'Transaction/COMMIT'),
        sum(w.count) filter (where w.type like 'Btree/%%')
    from pg_get_wal_stats(%s, %s, true)
    as w (type, count, count_percentage, size)
    where w.type ~ '/(\\+?INSERT|MULTI_INSERT|UPDATE|HOT_UPDATE|DELETE|LOCK|COMMIT|LOG|SPLIT)'
        and w.type not like 'Btree/DELETE'
"""
TRANSACTIONS = """
    select sum(d.xact_commit + d.xact_rollback) from pg_stat_database as d
    where d.datname = current_database()
"""
OTHERS = """
    select not exists (
        select from pg_stat_activity as a
        where a.datname = current_database() and a.pid <> pg_backend_pid()
            and a.backend_type = 'client backend'
    )
"""
VACUUMING = """
    select exists (
        select from pg_stat_activity, pg_sleep(0.1)
        where backend_type in ('autovacuum launcher', 'autovacuum worker')
    )
"""


def ask(connection: Connection, statement: str, *values: Any) -> Any:
    row = connection.execute(statement.encode(), values or None).fetchone()
    assert row
    return row if len(row) > 1 else row[0]


def written(connection: Connection, start: str) -> tuple[float, float, float]:
    """Bytes of WAL, commits and writes to indexes since then."""
    end = ask(connection, WAL_AT)
    connection.execute("set synchronous_commit = on")
    connection.execute(b"select pg_logical_emit_message(true, '', '')")  # all before it is flushed
    size, commits, entries = ask(connection, WAL, start, end)
    return float(size), float(commits), float(entries)


def pages(connection: Connection, statement: str) -> int:
    plan = ask(connection, "explain (analyze, buffers, format json) " + statement)[0]["Plan"]
    return int(plan["Shared Hit Blocks"]) + int(plan["Shared Read Blocks"])


def lives(connection: Connection, calls: dict[str, str], jobs: int, unit: str) -> dict[str, float]:
    """What the calls touch per job, and what they write."""
    touched: dict[str, list[float]] = {call: [] for call in calls}
    for number in range(ROUNDS + 3):
        if number == 3:  # plans are made by then, and pages
            start = ask(connection, WAL_AT)
        for call, statement in calls.items():
            held = ask(connection, HELD) if "{held}" in statement else []
            figure = pages(connection, statement.format(jobs=jobs, held=held)) / jobs
            touched[call].append(figure)
    size, commits, entries = written(connection, start)
    done = jobs * ROUNDS
    assert commits == ROUNDS * len(calls)
    return {
        **{f"{call}: pages per job": median(figures[3:]) for call, figures in touched.items()},
        f"{unit}: bytes of WAL per job": size / done,
        f"{unit}: writes to indexes per job": entries / done,
    }


def worker_runs(connection: Connection, dsn: str) -> dict[str, float]:
    """Queries and commits of a worker process in its life, from the start to the end."""
    tasks = Tasks()
    left = JOBS

    @tasks.task("noop")
    async def noop(payload: dict[str, Any], ctx: JobContext) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            worker.stop()

    connection.execute(ADD_JOBS.format(jobs=JOBS).encode())
    connection.execute("select pg_stat_force_next_flush()")
    before, start = ask(connection, TRANSACTIONS), ask(connection, WAL_AT)
    worker = Worker(dsn, tasks, concurrency=20, prefetch=BATCH - 20)
    asyncio.run(worker.run_async())
    while not ask(connection, OTHERS):
        pass
    queries = ask(connection, TRANSACTIONS) - before
    _, commits, _ = written(connection, start)
    return {
        "worker: queries per 1,000 jobs": float(queries) * 1000 / JOBS,
        "worker: commits per 1,000 jobs": commits * 1000 / JOBS,
    }


@contextmanager
def no_autovacuum(connection: Connection) -> Iterator[None]:
    """Keep it from the whole server: what it writes, in whatever database, is in the same log."""
    connection.execute("alter system set autovacuum = off")
    connection.execute("select pg_reload_conf()")
    try:
        while ask(connection, VACUUMING):
            pass
        yield
    finally:
        connection.execute("alter system reset autovacuum")
        connection.execute("select pg_reload_conf()")


def test_budget(database: str) -> None:
    version = os.environ["APP_JOBS_TEST_VERSION"]
    with (
        psycopg.connect(database, autocommit=True, prepare_threshold=None) as connection,
        no_autovacuum(connection),
    ):
        connection.execute("create extension pg_walinspect")
        figures = {
            **lives(connection, BATCHES, BATCH, f"batches of {BATCH}"),
            **lives(connection, SINGLES, 1, "one by one"),
            **worker_runs(connection, database),
        }
    figures = {name: round(figure, 2) for name, figure in figures.items()}
    print("\ncost of a job:", json.dumps(figures, indent=4))
    budgets = json.loads(BUDGETS.read_text()) if BUDGETS.exists() else {}
    if os.environ.get("APP_JOBS_BUDGET") == "write":
        budgets[version] = figures
        BUDGETS.write_text(json.dumps(budgets, indent=4, sort_keys=True) + "\n")
    budget = budgets[version]
    assert figures.keys() == budget.keys(), "APP_JOBS_BUDGET=write make pages ARGS='-k budget'"
    dearer = [
        f"{name}: {figure}, the budget is {budget[name]}"
        for name, figure in figures.items()
        if figure > budget[name] * MORE.get(name.partition(":")[0], MORE[""])
    ]
    assert not dearer, (
        f"a job costs more than before: {'; '.join(dearer)}. If it is worth that: "
        "APP_JOBS_BUDGET=write make pages ARGS='-k budget', and commit tests/pages/budget.json."
    )
