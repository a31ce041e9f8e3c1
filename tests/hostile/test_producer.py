"""Who may add jobs, make triggers or write a table can break nothing but what is theirs."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import datetime, timedelta, timezone
from typing import Any

import psycopg
import pytest
from psycopg import sql
from users import PATIENCE, Login

from app_jobs import BatchContext, Client, DelayedTasks, JobContext, Snooze, Tasks, Worker

Until = Callable[[str], None]
# Payloads that JSON allows, and somebody chokes on.
ODD = {
    "a long number": "9" * 5000,
    "beyond a float": '{"a": 1e999999}',
    "levels": "[" * 5000 + "]" * 5000,
    "levels of objects": '{"a":' * 5000 + "1" + "}" * 5000,
    "half a surrogate": r'{"a": "\ud800"}',
    "NUL": r'{"a": "\u0000"}',
    "twice the key": '{"a": 1, "a": 2}',
    "control characters": json.dumps({"a": "\x1b[31m\u202e\x07"}),
    "no object": "null",
}
UNREADABLE = {"a long number", "levels", "levels of objects"}
NAMES = [
    *("'", '"', "\\", "a'; drop table app_jobs.jobs; --", "$1", "%s", "{}", "*", ":", "#", " "),
    *("\x01\x1b[31m", "\u202etxt.exe", "\U0001f600", "ü" * 30, "null", "a\nb", "<script>"),
]
STEAL = "insert into public.ran values (current_user)"


@pytest.fixture
def ran_as(admin: psycopg.Connection[Any]) -> Callable[[], list[str]]:
    """A function: as whom code of the producer's has run. It has a schema of its own, theirs."""
    admin.execute("create schema theirs authorization hostile_producer")
    admin.execute("create table public.ran (who text)")
    admin.execute("grant insert on public.ran to public")
    return lambda: [who for (who,) in admin.execute("select distinct who from public.ran")]


# --- code of theirs that would run with our rights ---


def test_a_cast_made_behind_our_back(
    login: Login, dsn_of: Callable[[str], str], ran_as: Callable[[], list[str]]
) -> None:
    """It is newer than the snapshot in which we might look for it, and to_json() knows it."""
    owner = login("producer")
    owner.execute(
        "create type theirs.mood as enum ('sad');"
        "create table theirs.rows (id theirs.mood, many theirs.mood[]);"
        "create table theirs.later (id integer);"
        "create function theirs.as_json(theirs.mood) returns json language plpgsql as"
        f" $$ begin {STEAL}; return '1'; end $$;"
        "create trigger a after insert on theirs.rows for each row"
        " execute function app_jobs.tg_add_job_with_row_id('', 't');"
        "create trigger b after insert on theirs.rows for each row"
        " execute function app_jobs.tg_add_job_with_row('', 't');"
        "create trigger c after insert on theirs.rows for each row"
        " execute function app_jobs.tg_add_job_with_fields('', 't', 'id', 'many');"
        "create trigger d after insert on theirs.rows referencing new table as new_rows"
        " for each statement execute function app_jobs.tg_add_jobs_with_rows('', 't');"
        "create trigger b after insert on theirs.later for each row"
        " execute function app_jobs.tg_add_job_with_row('', 't')"
    )
    with psycopg.connect(dsn_of("producer")) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.execute("select from theirs.rows")
        owner.execute("create cast (theirs.mood as json) with function theirs.as_json(theirs.mood)")
        owner.execute("alter table theirs.later alter id type theirs.mood using 'sad'")
        connection.execute("insert into theirs.rows values ('sad', '{sad}')")
        connection.execute("insert into theirs.later values ('sad')")
    assert ran_as() == []
    owner.execute("select to_json(r) from theirs.rows as r")
    assert ran_as() == ["hostile_producer"]


def test_a_view_in_place_of_the_transition_table(
    login: Login, ran_as: Callable[[], list[str]]
) -> None:
    owner = login("producer")
    owner.execute(
        "create table theirs.rows (id integer);"
        f"create function theirs.steal() returns integer language plpgsql as $$ begin {STEAL};"
        " return 1; end $$;"
        "create trigger t after insert on theirs.rows for each statement"
        " execute function app_jobs.tg_add_jobs_with_rows('', 't');"
        "create temporary view new_rows as select theirs.steal() as id"
    )
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="has no transition table"):
        owner.execute("insert into theirs.rows values (1)")
    owner.execute(
        "create or replace trigger t after insert on theirs.rows referencing new table as new_rows"
        " for each statement execute function app_jobs.tg_add_jobs_with_rows('', 't')"
    )
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="a temporary relation"):
        owner.execute("insert into theirs.rows values (1)")
    owner.execute("drop view new_rows")
    owner.execute("insert into theirs.rows values (1)")
    assert ran_as() == []


def test_what_has_the_names_of_ours(
    login: Login, admin: psycopg.Connection[Any], ran_as: Callable[[], list[str]]
) -> None:
    """Temporary tables and types, functions and operators that fit better, another search_path."""
    tables = admin.execute(
        "select relname from pg_class where relnamespace = 'app_jobs'::regnamespace"
        " and relkind in ('r', 'v', 'S') union values ('pg_class'), ('pg_type'), ('pg_attribute')"
    ).fetchall()
    functions = ["to_json", "format", "now", "lower", "json_typeof", "pg_notify", "char_length"]
    admin.execute("grant all on schema theirs to hostile_operator")
    for user in ("producer", "operator"):
        connection = login(user)
        for (name,) in tables:
            connection.execute(f"create temporary table {name} (id integer, slot integer)")
        for name in ("uuid", "regclass", "interval"):
            connection.execute(f'create domain pg_temp."{name}" as text')
        for name in functions:
            connection.execute(
                f"create or replace function pg_temp.{name}(text) returns text language plpgsql"
                f" as $$ begin {STEAL}; return $1; end $$"
            )
            if user == "producer":
                connection.execute(
                    f"create function theirs.{name}(text) returns text language plpgsql"
                    f" as $$ begin {STEAL}; return $1; end $$"
                )
        if user == "producer":
            connection.execute(
                "create function theirs.same(text, text) returns boolean language plpgsql"
                f" as $$ begin {STEAL}; return true; end $$;"
                "create operator theirs.= (leftarg = text, rightarg = text, function = theirs.same)"
            )
        connection.execute("set search_path = theirs, pg_temp, app_jobs, pg_catalog")
        for statement in (
            "select app_jobs.add_job(identifier => 't', job_key => 'k')",
            "select app_jobs.add_job(identifier => 't', job_key => 'k', priority => 1)",
            """select app_jobs.add_jobs('[{"identifier": "t", "job_key": "l"}]')""",
            "select app_jobs.find_job('k')",
            f"create table theirs.{user} (id integer)",
            f"create trigger t after insert on theirs.{user} for each row"
            " execute function app_jobs.tg_add_job_with_row('', 't')",
            f"insert into theirs.{user} values (1)",
        ):
            connection.execute(statement.encode())
    for statement in (
        "select app_jobs.tick()",
        "select app_jobs.get_jobs('w', job_limit => 10)",
        "select app_jobs.heartbeat('w')",
        "select app_jobs.release_jobs('w')",
        "select app_jobs.metrics()",
        "select app_jobs.doctor()",
        "select app_jobs.list_jobs(search => 't')",
        "insert into app_jobs.tasks (task_identifier, backoff) values ('t', '{}')",
        """insert into app_jobs.scheduled_jobs (task_identifier, schedule_info)
            values ('t', '{"every": "1 h"}')""",
    ):
        connection.execute(statement.encode())
    assert ran_as() == []
    assert admin.execute("select count(*) from app_jobs.jobs").fetchone() == (4,)


# --- names ---


def test_names_are_but_text(login: Login, admin: psycopg.Connection[Any]) -> None:
    """Tasks, keys, queues and workers of any name."""
    producer, worker, operator = map(login, ("producer", "worker", "operator"))
    for name in NAMES:
        add = "select (app_jobs.add_job(identifier => %s, job_key => %s, queue_name => %s)).id"
        job = producer.execute(add, [name] * 3).fetchone()
        assert producer.execute("select (app_jobs.find_job(%s)).id", [name]).fetchone() == job
        operator.execute("select app_jobs.set_queue_limit(%s, 2)", [name])
        operator.execute("select app_jobs.set_task(%s, '{}')", [name])
        claim = "select id from app_jobs.get_job(%s, array[%s])"
        assert worker.execute(claim, [name, name]).fetchone() == job
        assert worker.execute("select app_jobs.heartbeat(%s)", [name]).fetchone() == job
    count = operator.execute("select count(*) from app_jobs.metrics()").fetchone()
    assert count == (len(NAMES),)
    operator.execute("select app_jobs.doctor()")
    for name in NAMES:
        assert worker.execute("select app_jobs.release_jobs(%s)", [name]).rowcount == 1
        assert producer.execute("select (app_jobs.cancel_job(%s)).key", [name]).fetchone() == (
            name,
        )
    assert admin.execute("select count(*) from app_jobs.jobs").fetchone() == (0,)


def test_names_of_tables_and_columns(
    login: Login, admin: psycopg.Connection[Any], ran_as: Callable[[], list[str]]
) -> None:
    producer = login("producer")
    for name in NAMES:
        parts = {"name": sql.Identifier(name), "task": sql.Literal(name)}
        for form in (
            "create table theirs.{name} ({name} text, id integer)",
            "create trigger a after insert on theirs.{name} for each row"
            " execute function app_jobs.tg_add_job_with_row_id('', {task}, {task})",
            "create trigger {name} after insert on theirs.{name} for each row"
            " execute function app_jobs.tg_add_job_with_row('', {task})",
            "create trigger z after insert on theirs.{name} for each row"
            " execute function app_jobs.tg_add_job_with_fields('', {task}, {task})",
            "insert into theirs.{name} values ('x', 1)",
        ):
            producer.execute(sql.SQL(form).format(**parts))
        added = admin.execute(
            "select payload ->> %s, payload ->> 'id' from app_jobs.jobs"
            " where task_identifier = %s order by 1, 2",
            [name, name],
        )
        assert added.fetchall() == [("x", "1"), ("x", None), (None, "x")]


# --- payloads ---


def test_an_odd_payload_fails_its_job_alone(
    admin: psycopg.Connection[Any],
    login: Login,
    running: Callable[[Tasks], AbstractContextManager[Worker]],
    until: Until,
) -> None:
    tasks = Tasks()

    @tasks.task("async")
    async def on_loop(payload: Any, ctx: JobContext) -> None:
        assert ctx.job.attributes == {}

    @tasks.task("thread")
    def in_thread(payload: Any, ctx: JobContext) -> None:
        assert ctx.job.attributes == {}

    @tasks.batch_task("batch", size=50)
    async def batch(payloads: list[Any], _: BatchContext) -> None:
        assert len(payloads) == len(ODD) - len(UNREADABLE) + 2

    producer = login("producer")
    for task in ("async", "thread", "batch"):
        admin.execute("select app_jobs.set_task(%s, %s)", [task, '{"keep_completed": "1 day"}'])
        for label, payload in {"first": "{}", **ODD, "last": "{}"}.items():
            producer.execute(
                "select app_jobs.add_job(identifier => %s, payload => %s, job_key => %s)",
                [task, payload, f"{task}: {label}"],
            )
    with running(tasks):
        until("not exists (select from app_jobs.jobs)")
    failed = admin.execute(
        "select key, attempts from app_jobs.finished_jobs where state = 'failed'"
    )
    assert dict(failed.fetchall()) == {
        f"{task}: {label}": 1 for task in ("async", "thread", "batch") for label in UNREADABLE
    }


def test_what_python_cannot_read_stops_no_reader(
    database: str, dsn_of: Callable[[str], str], admin: psycopg.Connection[Any]
) -> None:
    """Neither a client that lists and claims jobs, nor one of delayed tasks."""
    with Client(database) as client:
        for payload in ODD.values():
            admin.execute("select app_jobs.add_job(identifier => 't', payload => %s)", [payload])
        jobs = client.get_jobs("w", job_limit=len(ODD))
        assert len(jobs) == len(ODD)
        text = ODD["levels"]
        assert [job.payload for job in jobs].count(text) == 1
        assert [client.job_details(job.id) is None for job in jobs] == [False] * len(ODD)
        client.release_jobs("w")

    received: list[int] = []
    with DelayedTasks(dsn_of("operator")) as delayed:
        delayed.start(migrate=False)
        delayed.process_jobs("t", lambda job: received.append(job.id), heart_beat=0.01, max_jobs=3)
        deadline = datetime.now(timezone.utc) + timedelta(seconds=PATIENCE)
        while len(received) < len(ODD) and datetime.now(timezone.utc) < deadline:
            admin.execute("select pg_sleep(0.01)")
    assert sorted(received) == sorted(job.id for job in jobs)


def test_more_levels_than_the_server_reads(login: Login) -> None:
    producer = login("producer")
    for make in ("add_job(identifier => 't', payload => %s)", "add_jobs(%s::json)"):
        with pytest.raises(psycopg.errors.StatementTooComplex):
            producer.execute(f"select app_jobs.{make}".encode(), ["[" * 100_000 + "]" * 100_000])
    assert producer.execute("select 1").fetchone() == (1,)


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("run_at", "-infinity"),
        ("run_at", "infinity"),
        ("run_at", "294276-12-31"),
        ("run_at", "4713-01-01 BC"),
        ("retry_after", "178000000 years"),
    ],
)
def test_times_that_nobody_can_reckon_with(
    argument: str, value: str, login: Login, admin: psycopg.Connection[Any]
) -> None:
    """One such job would make every claim of everybody fail, or metrics, or a client's list."""
    producer = login("producer")
    for call in (
        f"add_job(identifier => 't', {argument} => '{value}')",
        f"add_jobs('t', array['1']::json[], {argument} => '{value}')",
        f"""add_jobs('[{{"identifier": "t", "{argument}": "{value}"}}]')""",
        f"""add_jobs('[{{"identifier": "t", "job_key": "k", "{argument}": "{value}"}}]')""",
    ):
        with pytest.raises(psycopg.errors.InvalidParameterValue, match=f"{argument} is "):
            producer.execute(f"select app_jobs.{call}".encode())
    with pytest.raises(psycopg.errors.CheckViolation):
        admin.execute(
            f"insert into app_jobs.jobs (task_identifier, slot, {argument}) values ('t', 1, %s)",
            [value],
        )


def test_what_a_handler_raises_can_be_stored(
    admin: psycopg.Connection[Any],
    running: Callable[[Tasks], AbstractContextManager[Worker]],
    until: Until,
) -> None:
    """Its own job's end is told or refused; the others' are told in any case."""
    tasks = Tasks()

    @tasks.task("t")
    async def raises(payload: Any, ctx: JobContext) -> None:
        if payload == "far":
            raise Snooze(timedelta.max)
        if payload == "good":
            return
        raise ValueError(payload)

    for payload in ("\x00", "\ud800", "x" * 1_000_000, "far", "good"):
        admin.execute(
            "select app_jobs.add_job(identifier => 't', payload => %s, max_attempts => 1)",
            [json.dumps(payload)],
        )
    with running(tasks):
        until("(select count(*) = 3 from app_jobs.finished_jobs)")
        until("(select count(*) = 1 from app_jobs.jobs)")
    assert admin.execute("select payload #>> '{}' from app_jobs.jobs").fetchall() == [("far",)]
