"""Nobody waits for a producer, nor for those who look after the queue, however long they stay.

Nor for ever for somebody else who has taken a lock of ours.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import psycopg
import pytest
import races

from app_jobs._link import is_trouble

# Whoever waits for a lock gets an error; how busy the machine is plays no part.
NO_WAITING = "-c lock_timeout=10ms"


def test_nobody_waits_for_a_producer(database: str) -> None:
    with ExitStack() as stack:

        def connect(**options: Any) -> psycopg.Connection[tuple[Any, ...]]:
            return stack.enter_context(psycopg.connect(database, options=NO_WAITING, **options))

        other = connect(autocommit=True)

        def call(query: str) -> list[Any]:
            return [value for (value,) in other.execute(query.encode()).fetchall()]

        def add(arguments: str) -> str:
            return f"select id from app_jobs.add_job(identifier => 'task', {arguments})"

        [running] = call(add("queue_name => 'serial', job_key => 'key'"))
        [held], [free] = call(add("priority => 1")), call(add("priority => 2"))
        assert call("select id from app_jobs.get_jobs('worker', job_limit => 2)") == [running, held]

        producers = [connect() for _ in range(16)]
        added = []
        for number, producer in enumerate(producers):
            key = "'key'" if number == 0 else "null"
            query = add(f"queue_name => 'serial', job_key => {key}")
            added += producer.execute(query.encode()).fetchall()

        [last] = call(add("queue_name => 'serial'"))
        assert call("select app_jobs.heartbeat('worker')") == [running, held]
        assert call("select id from app_jobs.get_jobs('other', job_limit => 9)") == [free]
        complete = f"select app_jobs.complete_jobs('worker', array[{running}, {held}])"
        assert call(complete) == [held], "the key's old holder is skipped while its row is locked"
        assert call(f"select app_jobs.complete_jobs('other', array[{free}])") == [free]
        assert call("select relisted from app_jobs.tick()") == [0]

        for producer in producers:
            producer.commit()
        assert call(complete) == [running], "tried again, it succeeds"
        left = []
        while found := call("select id from app_jobs.get_jobs('worker', job_limit => 9)"):
            left += found
            assert call(f"select app_jobs.complete_jobs('worker', array{found})") == found
        assert left == [job_id for (job_id,) in sorted([*added, (last,)])], "one by one, in order"


# All that is written down of a closed slot is out of date, every alarm has gone off, and a worker
# has gone: whoever comes would like to set it right.
OUT_OF_DATE = [
    "call spec.add(jobs => 3); call spec.add(queue_name => 'q', jobs => 3)",
    "call spec.add(run_at => now() + interval '1 hour')",
    "call spec.schedule('s', now() + interval '1 hour')",
    "select app_jobs.get_jobs('w', job_limit => 5)",
    "call spec.add(jobs => 3)",
    "call spec.turn_slots()",
    "call spec.turn_slots()",
    "select app_jobs.permanently_fail_jobs(array_agg(id)) from app_jobs.jobs where run_at > now()",
    "delete from app_jobs.jobs where line = '' or seat is not null",
    "update app_jobs.alarms set due_at = now()",
    "update app_jobs.workers set last_seen_at = now() - interval '1 hour'",
    "update app_jobs.finished_jobs set keep_until = now()",
    "call spec.add(queue_name => 'q')",
]
CALLS = [
    "get_jobs('other', job_limit => 9)",
    "tick()",
    "heartbeat('other')",
    "run_due_schedules()",
    "count_again(100)",
    "prune()",
    "prune('0')",
]


@pytest.mark.parametrize(
    "table",
    ["alarms", "finished_jobs", "jobs", "scheduled_jobs", "slot_counts", "streams", "workers"],
)
def test_nobody_waits_for_whoever_sets_right_what_is_out_of_date(database: str, table: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(races.HELPERS.read_bytes())
        connection.execute("select app_jobs.heartbeat('w')")
        for statement in OUT_OF_DATE:
            connection.execute(statement.encode())
    with (
        psycopg.connect(database) as holder,
        psycopg.connect(database, autocommit=True, options=NO_WAITING) as other,
    ):
        held = holder.execute(f"select from app_jobs.{table} for update".encode())
        assert held.rowcount > 0
        for call in CALLS:
            other.execute(f"select app_jobs.{call}".encode())


def test_nobody_waits_for_ever_for_an_outsider(database: str) -> None:
    """Who has the slot's lock is named, which workers take for trouble that passes."""
    add = "select id from app_jobs.add_job(identifier => 'task')"
    current = "pg_sequence_last_value('app_jobs.slot_current')::text"
    asleep = "select wait_event = 'PgSleep' from pg_stat_activity where pid = %s"
    with (
        psycopg.connect(database, autocommit=True) as outsider,
        psycopg.connect(database, autocommit=True, options="-c statement_timeout=20s") as producer,
        ThreadPoolExecutor() as pool,
    ):
        ((key,),) = outsider.execute(f"select app_jobs.lock_key('slot', {current})".encode())
        outsider.execute("select pg_advisory_lock(%s)", [key])
        with pytest.raises(psycopg.errors.LockNotAvailable) as caught:
            producer.execute(add)
        assert f"advisory lock {key}," in str(caught.value.diag.message_hint)
        assert is_trouble(caught.value)

        producer.execute("set statement_timeout = '100ms'")
        with pytest.raises(psycopg.errors.QueryCanceled):
            producer.execute(add)
        producer.execute("reset statement_timeout")

        added = pool.submit(producer.execute, add)
        while outsider.execute(asleep, [producer.info.backend_pid]).fetchone() != (True,):
            assert not added.done()
        outsider.execute("select pg_advisory_unlock(%s)", [key])
        assert added.result().rowcount == 1
