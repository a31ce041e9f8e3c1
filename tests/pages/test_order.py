"""get_jobs() returns exactly the order priority, run_at, id: over tasks, slots and queues."""

from __future__ import annotations

import random

import psycopg
import pytest


@pytest.mark.parametrize("tasks", [None, ["t0", "t1", "t2", "t3"], ["t2"]])
def test_order(database: str, tasks: list[str] | None) -> None:
    dice = random.Random(7)
    with psycopg.connect(database, autocommit=True) as connection:
        for number in range(80):
            connection.execute(
                "select count(*) from app_jobs.add_jobs(%s, "
                "array(select '{}'::json from generate_series(1, %s)), queue_name => %s, "
                "priority => %s, run_at => now() - %s * interval '1 second')",
                [
                    f"t{dice.randint(0, 3)}",
                    jobs := dice.choice([1, 30, 300, 1500]),
                    f"q{number}" if jobs == 1 else None,
                    dice.randint(0, 3),
                    dice.choice([0, 0, 60]),
                ],
            )
            if dice.random() < 0.5:
                connection.execute("select app_jobs.tick()")
        expected = connection.execute(
            "select id from app_jobs.jobs where %s::text[] is null or task_identifier = any(%s) "
            "order by priority, run_at, id",
            [tasks, tasks],
        ).fetchall()
        got: list[tuple[int]] = []
        while rows := connection.execute(
            "select id from app_jobs.get_jobs('w', %s, '1 hour', %s)",
            [tasks, dice.choice([1, 7, 500])],
        ).fetchall():
            got += rows
    assert len(expected) > 5_000
    assert got == expected
