"""What is counted of closed slots is right again a few ticks after a restore, as before it."""

from __future__ import annotations

from typing import Any

import psycopg
from roads import psql, whole_dump

COUNTED_AT_ONCE = 4  # slots, once a second
COUNTED = """
    select task_identifier, coalesce(queue_name, ''), state, jobs
    from app_jobs.metrics,
        unnest(
            array['ready', 'scheduled', 'running', 'parked'],
            array[ready, scheduled, running, parked]
        ) as c(state, jobs)
    where jobs > 0
"""
THERE = """
    select j.task_identifier, coalesce(j.queue_name, ''), j.state, count(*)
    from (
        select
            task_identifier, queue_name,
            case
                when locked_by is not null then 'running'
                when line is null then 'scheduled'
                when line = '' then 'ready'
                else 'parked'
            end as state
        from app_jobs.jobs
    ) as j
    group by 1, 2, 3
"""


# Closed slots of three tasks and states; then jobs go from the midst of them.
FILL = """
    select from app_jobs.add_jobs('plain', array_fill('1'::json, array[12000]));
    select from app_jobs.add_jobs('queued', array_fill('1'::json, array[3000]), queue_name => 'q');
    select from app_jobs.add_jobs('later', array_fill('1'::json, array[3000]),
        run_at => '2100-01-01');
    select from app_jobs.get_jobs('w', null, '1 h', 500);
    select app_jobs.cancel_jobs(array_agg(id)) from app_jobs.jobs where id % 7 = 0;
"""


def rows(connection: psycopg.Connection[Any], query: str) -> list[tuple[Any, ...]]:
    return sorted(connection.execute(query.encode()).fetchall())


def test_counts_after_a_restore(database: str, empty_database: str) -> None:
    psql(database, FILL)
    psql(empty_database, whole_dump(database))
    with psycopg.connect(empty_database, autocommit=True) as connection:
        assert rows(connection, COUNTED) != rows(connection, THERE)
        [(closed,)] = rows(connection, "select count(distinct slot) from app_jobs.slot_counts")
        assert closed > 2 * COUNTED_AT_ONCE
        # from where the last count has ended to there, and one to begin anew
        for _ in range(closed // COUNTED_AT_ONCE + 2):
            connection.execute("select setval('app_jobs.counted_at', 0)")
            connection.execute("select app_jobs.tick()")
        assert rows(connection, COUNTED) == rows(connection, THERE)
