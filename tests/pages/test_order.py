"""get_jobs() returns exactly the order priority, run_at, id: over tasks, slots and queues.

Only claims of a hundred and more at the same moment share out what is as urgent.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

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


Claim = Callable[[psycopg.Connection[Any], int], list[int]]


@pytest.fixture
def claim() -> Claim:
    """A function (connection, job_limit): which jobs it claims, in order: 1 is the first added."""

    def claim(connection: psycopg.Connection[Any], limit: int) -> list[int]:
        query = (
            "select g.id - (select min(j.id) from app_jobs.jobs as j) + 1"
            " from app_jobs.get_jobs('w', null, '1 hour', %s) as g"
        )
        return [row[0] for row in connection.execute(query, [limit])]

    return claim


@contextmanager
def in_one_second(connection: psycopg.Connection[Any]) -> Iterator[list[bool]]:
    """Say afterwards whether the block ran within one second of the database's clock."""
    query = "select floor(extract(epoch from clock_timestamp()))"
    verdict: list[bool] = []
    before = connection.execute(query).fetchone()
    yield verdict
    verdict.append(connection.execute(query).fetchone() == before)


def test_large_claims_at_the_same_moment_take_slots_that_are_as_urgent(
    database: str, claim: Claim
) -> None:
    # jobs 1 to 1000, 1001 to 2000 and so on, each in a closed slot
    add = (
        "select count(*) from app_jobs.add_jobs('t', "
        "array(select '{}'::json from generate_series(1, 1000)), priority => %s, queue_name => %s)"
    )
    with (
        psycopg.connect(database, autocommit=True) as first,
        psycopg.connect(database, autocommit=True) as second,
    ):
        for priority, queue in [(0, None), (0, "q"), (0, None), (1, None)]:
            first.execute(add, [priority, queue])
        while True:
            with in_one_second(second) as verdict, first.transaction(force_rollback=True):
                taken = claim(first, 100)
                with second.transaction(force_rollback=True):
                    small, large = claim(second, 99), claim(second, 100)
                with second.transaction(force_rollback=True):
                    all_as_urgent = claim(second, 2000)
            if verdict == [True]:
                break
        assert taken == list(range(1, 101))
        assert small == list(range(101, 200))  # in the exact order
        assert large == list(range(2001, 2101))  # not of the queue: its jobs keep their order
        # no job less urgent before all that are more so
        assert sorted(all_as_urgent) == [*range(101, 1002), *range(2001, 3001), *range(3001, 3100)]


def test_many_large_claims_at_the_same_moment_all_take_different_slots(
    database: str, claim: Claim
) -> None:
    with ExitStack() as stack:
        first, *others = [
            stack.enter_context(psycopg.connect(database, autocommit=True)) for _ in range(20)
        ]
        first.execute(
            "select count(*) from app_jobs.add_jobs('t', "
            "array(select '{}'::json from generate_series(1, 24000)))"
        )
        while True:
            with in_one_second(first) as verdict, ExitStack() as claims:
                firsts = []
                for connection in others:
                    claims.enter_context(connection.transaction(force_rollback=True))
                    firsts.append(claim(connection, 100)[0])
            if verdict == [True]:
                break
    assert firsts == list(range(1, 19_000, 1000))


def test_a_claim_that_stays_open_keeps_nobody_from_the_rest_of_its_slot(
    database: str, claim: Claim
) -> None:
    with (
        psycopg.connect(database, autocommit=True) as first,
        psycopg.connect(database, autocommit=True) as second,
    ):
        first.execute(
            "select count(*) from app_jobs.add_jobs('t', "
            "array(select '{}'::json from generate_series(1, 3000)))"
        )
        with first.transaction(force_rollback=True):
            claim(first, 100)
            deadline = time.monotonic() + 10
            while time.monotonic() < deadline:
                with second.transaction(force_rollback=True):
                    if claim(second, 100) == list(range(101, 201)):
                        return
    pytest.fail("the rest of the slot was left alone")
