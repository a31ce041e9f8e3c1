"""Pages touched by the hot functions: flat, blind and deep, whatever else is in the table.

Pages, not seconds, so that a busy machine changes nothing. Each figure is EXPLAIN (ANALYZE,
BUFFERS) of a real call that is rolled back. The numbers of jobs are a tenth here; `make pages` sets
APP_JOBS_FULL=1 and takes all of them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import mean, median
from typing import Any

import psycopg
import pytest

FULL = os.environ.get("APP_JOBS_FULL") == "1"
SCALE = 10 if FULL else 1
PAYLOADS = "array(select json_build_object('n', n) from generate_series(1, {}) as n)"
MEASURED = {
    "get_job": "select app_jobs.get_job('probe', array['noop'], '1 hour')",
    "get_jobs(100)": "select app_jobs.get_jobs('probe', array['noop'], '1 hour', 100)",
    "tick": "select app_jobs.tick()",
}

Connection = psycopg.Connection[tuple[Any, ...]]


def connect(dsn: str) -> Connection:
    return psycopg.connect(dsn, autocommit=True, prepare_threshold=None)


def pages(connection: Connection, statement: str, *, undo: bool = True) -> int:
    """Pages that a statement touches, in cache or not; its effects are rolled back."""
    with connection.transaction(force_rollback=undo):
        row = connection.execute("explain (analyze, buffers, format json) " + statement).fetchone()
    assert row is not None
    plan = row[0][0]["Plan"]
    return int(plan["Shared Hit Blocks"]) + int(plan["Shared Read Blocks"])


def add(connection: Connection, task: str, jobs: int, options: str = "") -> None:
    connection.execute(
        f"select count(*) from app_jobs.add_jobs('{task}', {PAYLOADS.format(jobs)} {options})"
    )


def claim(connection: Connection, jobs: int, task: str = "noop") -> list[int]:
    rows = connection.execute(
        "select id from app_jobs.get_jobs('w', array[%s], '1 hour', %s)", [task, jobs]
    ).fetchall()
    return [row[0] for row in rows]


def complete(connection: Connection, ids: list[int]) -> None:
    done = connection.execute("select app_jobs.complete_jobs('w', %s)", [ids]).fetchall()
    assert len(done) == len(ids)


def ticks(connection: Connection, times: int = 3) -> None:
    for _ in range(times):
        connection.execute("select app_jobs.tick()")


@contextmanager
def old_snapshot(dsn: str) -> Iterator[None]:
    """A session with a REPEATABLE READ snapshot, forgotten since noon."""
    with psycopg.connect(dsn) as connection:
        connection.execute("set transaction isolation level repeatable read")
        connection.execute("select count(*) from app_jobs.jobs")
        yield
        connection.rollback()


def steady_round(connection: Connection, number: int) -> None:
    add(connection, "noop", 500)


def mixed_round(connection: Connection, number: int) -> None:
    """Serial jobs of ten queues, and jobs due in a moment; retries are made by the drain."""
    add(connection, "noop", 450)
    add(connection, "noop", 25, f", queue_name => 'q{number % 10}'")
    add(connection, "noop", 25, ", run_at => clock_timestamp() + interval '0.2 s'")


def unserved_round(connection: Connection, number: int) -> None:
    add(connection, "noop", 500)
    connection.execute("select app_jobs.add_job(identifier => 'nobody')")


@pytest.mark.parametrize(
    ("a_round", "fails", "uncommitted"),
    [
        pytest.param(steady_round, 0, False, id="steady"),
        pytest.param(unserved_round, 0, False, id="one-in-500-unserved"),
        pytest.param(steady_round, 0, True, id="uncommitted-producer"),
        pytest.param(mixed_round, 20, False, id="retries-scheduled-serial"),
    ],
)
def test_flat_under_an_old_snapshot(
    database: str, a_round: Callable[[Connection, int], None], fails: int, uncommitted: bool
) -> None:
    """Highest figure up to the end <= 1.5 x highest up to 10,000 jobs.

    Some ticks have slots to close and count, some claims have jobs that fell due: the clock decides
    which, and which of them are measured. There it is the mean. Plans are made on the empty table,
    and nobody analyzes by hand.
    """
    until = 300_000 if FULL else 25_000
    by_the_clock = {"tick", *(MEASURED if a_round is mixed_round else ())}
    figures: dict[str, list[list[int]]] = {name: [[], []] for name in MEASURED}
    with connect(database) as connection, psycopg.connect(database) as producer:
        for _ in range(6):
            for statement in MEASURED.values():
                connection.execute(statement)
        if uncommitted:
            producer.execute("select app_jobs.add_job(identifier => 'late')")
        with old_snapshot(database):
            done = number = sampled = 0
            while done < until:
                number += 1
                a_round(connection, number)
                while ids := claim(connection, 250):
                    if done >= sampled:
                        sampled = done + (1 if not FULL or done < 10_000 else 1250)
                        for name, statement in MEASURED.items():
                            figures[name][done > 10_000].append(pages(connection, statement))
                    if failed := ids[: len(ids) // fails] if fails else []:
                        failures = [{"job_id": i, "retry_in": "0.1 s"} for i in failed]
                        connection.execute(
                            "select app_jobs.fail_jobs('w', %s)", [json.dumps(failures)]
                        )
                    complete(connection, ids[len(failed) :])
                    done += len(ids)
        producer.commit()
        if uncommitted:
            ticks(connection)
            assert len(claim(connection, 10, "late")) == 1
    compared = {
        name: [mean(part) if name in by_the_clock else max(part) for part in parts]
        for name, parts in figures.items()
    }
    print("\npages, up to 10,000 jobs and after:", compared)
    for name, (early, late) in compared.items():
        assert late <= 1.5 * early, f"{name}: {late} pages after {until} jobs, {early} before"


ENTRIES = """
    select sum(pg_stat_get_xact_tuples_returned(x.indexrelid))
    from pg_index as x
    inner join pg_class as c on c.oid = x.indrelid
    where c.relnamespace = 'app_jobs'::regnamespace
"""


def entries(connection: Connection, statement: str) -> int:
    """Entries of indexes that a statement reads, dead ones as well; its effects are rolled back."""
    figures = []
    with connection.transaction(force_rollback=True):
        for each in ("select", statement):
            connection.execute(each)
            row = connection.execute(ENTRIES).fetchone()
            assert row is not None
            figures.append(row[0])
    return int(figures[1] - figures[0])


def test_one_by_one_under_an_old_snapshot(database: str) -> None:
    """Jobs taken one by one out of a closed slot, after hundreds of slots have come and gone.

    Pages hide how many dead entries are on them, which cost time as well. Without what is written
    down now and then a claim would meet as many as were taken out of its slot before, 500 in the
    mean, and one for each slot that was ever open.
    """
    with connect(database) as connection, old_snapshot(database):
        for _ in range(100 * SCALE):
            connection.execute("select setval('app_jobs.activity', 1000)")
            ticks(connection)
        gone = connection.execute("select last_value from app_jobs.slot_first").fetchone()
        assert gone is not None
        assert gone[0] >= 100 * SCALE
        add(connection, "noop", 1000)
        figures = []
        for number in range(900):
            if number % 10 == 0:
                figures.append(entries(connection, MEASURED["get_job"]))
            complete(connection, claim(connection, 1))
    print("\nentries read by get_job, mean and most:", mean(figures), max(figures))
    assert mean(figures) <= 200


def blocked_by_queue(connection: Connection) -> None:
    """One job of the queue runs; each job behind it is met once."""
    add(connection, "mine", 5_000 * SCALE, ", queue_name => 'busy'")
    assert len(claim(connection, 1, "mine")) == 1
    ticks(connection)
    assert claim(connection, 10_000, "mine") == []


def others(connection: Connection) -> None:
    """Large additions: they bring slots of their own."""
    for _ in range(200):
        add(connection, "other", 500 * SCALE, ", priority => -1")
        ticks(connection, 1)


def others_one_by_one(connection: Connection) -> None:
    """Single jobs: they stand in the same slots as ours."""
    for _ in range(20):
        connection.execute(
            "select count(app_jobs.add_job(identifier => 'other', priority => -1)) "
            "from generate_series(1, %s)",
            [250 * SCALE],
        )
        ticks(connection)


def years_ahead(connection: Connection) -> None:
    """Scheduled jobs."""
    add(connection, "mine", 10_000 * SCALE, ", run_at => now() + interval '3 years'")


IN_FRONT = {
    "others": others,
    "others-one-by-one": others_one_by_one,
    "years-ahead": years_ahead,
    "serial-queue": blocked_by_queue,
}


@pytest.mark.parametrize("in_front", IN_FRONT)
def test_blind_to_what_it_may_not_take(database: str, in_front: str) -> None:
    """get_job(task) with others in front: at most twice the pages of the same with none."""
    statement = "select app_jobs.get_job('probe', array['mine'], '1 hour')"
    with connect(database) as connection:
        add(connection, "mine", 5, ", priority => 5")
        ticks(connection)
        alone = min(pages(connection, statement) for _ in range(3))
        assert len(claim(connection, 5, "mine")) == 5
        IN_FRONT[in_front](connection)
        add(connection, "mine", 5, ", priority => 5")
        ticks(connection)
        with_others = min(pages(connection, statement) for _ in range(3))
        print(f"\npages of get_job: {alone} alone, {with_others} with {in_front} in front")
        assert with_others <= 2 * alone


def test_blind_while_the_queue_is_locked(database: str) -> None:
    """The same, while a long transaction holds the lock of the queue that the others stand in."""
    statement = "select app_jobs.get_job('probe', array['mine'], '1 hour')"
    with connect(database) as connection, psycopg.connect(database) as completer:
        add(connection, "mine", 5, ", priority => 5")
        add(connection, "held", 1, ", queue_name => 'busy'")
        ticks(connection)
        alone = min(pages(connection, statement) for _ in range(3))
        (held,) = claim(connection, 1, "held")
        completer.execute("select app_jobs.complete_jobs('w', array[%s::bigint])", [held])
        add(connection, "mine", 5_000 * SCALE, ", queue_name => 'busy'")
        for _ in range(10 * SCALE):
            claim(connection, 1_000, "mine")
        # the best job stays in the line for a second, in case the lock is held for a moment only
        connection.execute(
            "update app_jobs.jobs set updated_at = now() - interval '2 s' where line = ''"
        )
        for _ in range(2):
            assert claim(connection, 1_000, "mine") == []
        add(connection, "mine", 5, ", priority => 5")
        with_others = min(pages(connection, statement) for _ in range(3))
        print(f"\npages of get_job: {alone} alone, {with_others} behind a queue whose lock is held")
        assert with_others <= 2 * alone
        completer.commit()
        ticks(connection)
        assert len(claim(connection, 1, "mine")) == 1


PARKED = """
with slot as (select nextval('app_jobs.slot_number')::integer as number),
parked as (
    insert into app_jobs.jobs (task_identifier, queue_name, line, slot)
    select 'noop', 'q' || n, ':q' || n, s.number
    from slot as s, generate_series(%(low)s::integer, %(high)s::integer) as n
    returning queue_name, line
),
paused as (
    insert into app_jobs.queue_settings (line, queue_name, paused)
    select p.line, p.queue_name, true from parked as p
)
select s.number from slot as s
"""


def test_queues_take_turns(database: str) -> None:
    """tick() with 1,000 queues that have parked jobs and cannot move, and with 10,000."""
    figures = []
    with connect(database) as connection:
        for low in range(0, 10_000 * SCALE, 1000):
            row = connection.execute(PARKED, {"low": low, "high": low + 999}).fetchone()
            assert row is not None
            connection.execute("select app_jobs.close_slot(%s)", row)
            if low in (0, 10_000 * SCALE - 1000):
                ticks(connection)
                figures.append(max(pages(connection, MEASURED["tick"]) for _ in range(5)))
    print("\npages of tick, few queues and many:", figures)
    assert figures[1] <= 1.5 * figures[0]


FINISHED = """
insert into app_jobs.finished_jobs (
    id, task_identifier, payload, attributes, priority, run_at, attempts, max_attempts, lease,
    created_at, state, keep_until
)
select n, 'noop', '{}', '{}', 0, now(), 1, 1, 1, now(), 'completed', now() - n * interval '1 second'
from generate_series(1, %s) as n
order by random()
"""


def test_pruning_is_flat(database: str) -> None:
    """prune() of 100 jobs: the same at the start and half-way, under an old snapshot."""
    jobs = 20_000 * SCALE
    with connect(database) as connection:
        connection.execute(FINISHED, [jobs])
        with old_snapshot(database):
            figures = [pages(connection, "select app_jobs.prune(batch => 100)")]
            connection.execute("select app_jobs.prune(batch => %s)", [jobs // 2])
            figures.append(pages(connection, "select app_jobs.prune(batch => 100)"))
    print("\npages of prune(), at the start and half-way:", figures)
    assert figures[1] <= 1.5 * figures[0]


def test_deep(database: str) -> None:
    """Jobs of one task added in one call: the same cost at start, half and nine tenths."""
    jobs = 100_000 * SCALE
    figures = []
    with connect(database) as connection:
        add(connection, "noop", jobs)
        done = 0
        for until in (0, jobs // 2, jobs * 9 // 10):
            while done < until:
                ids = claim(connection, min(1000, until - done))
                complete(connection, ids)
                done += len(ids)
            figures.append(min(pages(connection, MEASURED["get_job"]) for _ in range(3)))
    print("\npages of get_job at 0, 1/2, 9/10:", figures)
    assert max(figures) <= 2 * min(figures)


def test_one_of_fifty_tasks(database: str) -> None:
    """All tasks have work in all slots: one task's claim touches at most 300 pages."""
    with connect(database) as connection:
        for _ in range(10):
            for task in range(50):
                add(connection, f"task{task}", 10 * SCALE)
            ticks(connection)
        statement = "select app_jobs.get_job('probe', array['task7'], '1 hour')"
        figure = min(pages(connection, statement) for _ in range(3))
        print("\npages of get_job, one task of fifty:", figure)
        assert figure <= 300


SCHEDULES = """
    insert into app_jobs.scheduled_jobs (task_identifier, schedule_info, next_run_at)
    select 'noop', '{{"every": "1 hour"}}', {}
    from generate_series(1, {}) as n
"""


def schedules(connection: Connection, number: int, next_run_at: str) -> None:
    connection.execute(SCHEDULES.format(next_run_at, number))


@pytest.mark.parametrize("added", ["at-once", "one-by-one"])
def test_schedules_that_are_due(database: str, added: str) -> None:
    """Due schedules cost some 20 pages each, job included, and nothing for those that wait."""
    waiting = 10_000 * SCALE

    def least(statement: str = "select app_jobs.run_due_schedules()") -> int:
        return min(pages(connection, statement) for _ in range(3))

    later = "now() + interval '1 hour' + n * interval '1 ms'"
    with connect(database) as connection:
        schedules(connection, 10, later)
        ticks(connection)
        empty, idle = least(), least("select app_jobs.tick()")
        schedules(connection, 1, "now()")
        alone = least()
        if added == "at-once":
            schedules(connection, waiting, later)
        else:
            for _ in range(waiting // 100):
                with connection.transaction():
                    schedules(connection, 100, later)
                connection.execute("select app_jobs.turn_slots()")
        ticks(connection)
        schedules(connection, 1, "now()")
        one = least()
        schedules(connection, 99, "now()")
        hundred = least()
        tick = least("select app_jobs.tick()")
    print(
        f"\npages of run_due_schedules: {empty} for none, {alone} for one; behind {waiting} that"
        f" wait {one} for one, {hundred} for a hundred; tick {idle} and {tick}"
    )
    assert one <= 2 * alone
    assert hundred <= empty + 100 * 25
    assert tick <= idle + 100 * 25


def test_schedules_under_an_old_snapshot(database: str) -> None:
    """A look for due schedules passes none that have run before.

    To run one again does: its own entries in the unique indexes stay as long as the snapshot.
    """
    statement = "select app_jobs.run_due_schedules()"
    runs = 60 if FULL else 20
    highest = [0, 0]
    with connect(database) as connection:
        schedules(connection, 500, "now()")
        with old_snapshot(database):
            for run in range(runs):
                connection.execute("update app_jobs.scheduled_jobs set next_run_at = now()")
                assert len(connection.execute(statement).fetchall()) == 500
                ticks(connection, 1)
                part = int(run >= runs // 3)
                # twice: autovacuum may have called for new plans
                look = min(pages(connection, statement) for _ in range(2))
                highest[part] = max(highest[part], look)
                complete(connection, claim(connection, 500))
    print(f"\npages of a look, up to {500 * runs // 3} runs and after: {highest}")
    assert highest[1] <= 1.5 * highest[0]


REPORTS = """
insert into app_jobs.stat_reports (at, worker_id, figures)
select
    date_bin('1 minute', now() - make_interval(mins => %s), 'epoch'), 'w',
    array(
        select row(
            null, null, 'task ' || t, null, 1, 0, 0, array_fill(1::bigint, array[21]),
            array_fill(1::bigint, array[21]), 1, 1
        )::app_jobs.task_figures
        from generate_series(1, 20) as t
    )
from generate_series(1, 60)"""


def test_statistics_under_an_old_snapshot(database: str) -> None:
    """Reports of ten workers are merged minute by minute; all of them stay, dead."""
    minutes = 60
    with connect(database) as connection, old_snapshot(database):
        ticks(connection)
        start = minutes + 10
        connection.execute(
            "select setval('app_jobs.stats_merged_to', extract(epoch from"
            " date_bin('1 minute', now() - make_interval(mins => %s), 'epoch'))::bigint)",
            [start],
        )
        merges, reads = [], []
        connection.execute(REPORTS, [start])
        for minute in range(minutes):
            connection.execute(REPORTS, [start - minute - 1])
            merges.append(pages(connection, MEASURED["tick"], undo=False))
            now = f"now() - interval '{start - minute} min'"
            read = f"app_jobs.task_stats({now} - interval '10 min', {now})"
            reads.append(pages(connection, f"select from {read}"))
        left = connection.execute("select count(*) from app_jobs.stat_reports").fetchone()
    print("\npages of a tick that merges, of a read:", merges[::10], reads[::10])
    assert left == (60,)
    for figures in (merges, reads):
        assert median(figures[-20:]) <= 1.2 * median(figures[:20])


def test_metrics_and_doctor(database: str) -> None:
    """As many pages with 1,000,000 jobs waiting as with 10,000; some per tenant, task and queue."""
    figures: dict[str, list[int]] = {"app_jobs.metrics": [], "app_jobs.doctor()": []}

    def look(connection: Connection, ready: int) -> None:
        ticks(connection)
        for source, seen in figures.items():
            statement = f"select * from {source}"
            seen.append(min(pages(connection, statement) for _ in range(3)))
        row = connection.execute("select sum(ready) from app_jobs.metrics").fetchone()
        assert row == (ready,)

    with connect(database) as connection:
        add(connection, "noop", 10_000)
        look(connection, 10_000)
        for _ in range(9):
            add(connection, "noop", 10_000 * SCALE)
        add(connection, "noop", 10_000 * (SCALE - 1))
        look(connection, 100_000 * SCALE)
        for _ in range(SCALE):
            connection.execute(
                "select count(*) from app_jobs.add_jobs((select json_agg(json_build_object("
                "'identifier', 'task' || n % 50, 'db_id', uuid_in(md5((n % 3)::text)::cstring)))"
                " from generate_series(1, 100000) as n))"
            )
        look(connection, 200_000 * SCALE)
        row = connection.execute("select count(*) from app_jobs.metrics").fetchone()
    assert row == (151,)
    print("\npages, 10,000 of one task; all of them; 50 tasks of 3 tenants more:", figures)
    for source, (few, many, mixed) in figures.items():
        assert many <= few + 10, f"{source}: {many} pages with many jobs, {few} with few"
        assert mixed <= few + 4 * 151, f"{source}: {mixed} pages with 150 groups more"


def test_lists(database: str) -> None:
    """Lists look at 20,000 jobs, whatever there are; the most that a filter can make them."""
    figures: dict[str, list[int]] = {
        "list_jobs()": [],
        "list_jobs(search => 'x')": [],
        "list_jobs('nothing', state => 'running')": [],
        "list_finished()": [],
        "list_finished(search => 'x')": [],
        "list_finished('nothing', state => 'failed')": [],
        "list_tasks()": [],
        "list_queues()": [],
    }

    def look(connection: Connection) -> None:
        ticks(connection)
        for call, seen in figures.items():
            statement = f"select * from app_jobs.{call}"
            seen.append(min(pages(connection, statement) for _ in range(3)))

    with connect(database) as connection:
        for jobs in (50_000, 50_000 * SCALE):
            for _ in range(jobs // 10_000):
                add(connection, "noop", 10_000, ", queue_name => 'q'")
            connection.execute(
                """
                insert into app_jobs.finished_jobs (
                    id, task_identifier, payload, attributes, priority, run_at, attempts,
                    max_attempts, lease, created_at, state, keep_until
                )
                select
                    (select coalesce(max(f.id), 10000000) from app_jobs.finished_jobs as f) + n,
                    'noop', '{}', '{}', 0, now(), 1, 1, 1, now(),
                    case n %% 2 when 0 then 'failed' else 'completed' end, now() + interval '1 day'
                from generate_series(1, %s) as n
                """,
                [jobs],
            )
            look(connection)
    print("\npages of lists, 50,000 jobs and more:", figures)
    for call, (few, many) in figures.items():
        # a page of an index more on the way down, and for each thousand jobs one of their counts
        assert many <= 1.2 * few + 20, f"{call}: {many} pages with many jobs, {few} with few"
