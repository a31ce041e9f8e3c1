"""Nobody waits for a producer, however many there are and however long they stay."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import psycopg

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
