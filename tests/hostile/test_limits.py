"""At each limit it works; beyond it is a refusal that says so, and nothing is lost or half done.

The table is in docs/reliability.md. With APP_JOBS_FULL=1 numbers are larger, and prints tell them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from users import LONG, Login

from app_jobs import BadArgument, Client, Tasks, Worker, migrate
from app_jobs.embedded import throw_away

MANY = 50_000 if LONG else 2000
MEGABYTE = 1024 * 1024
EVERY = """'{"every": "1 h"}'"""
# A call, what its argument takes, and the name in the refusal. {0} is a text of that length, or the
# number itself.
LENGTHS = [
    ("add_job(identifier => {0})", 126, "identifier"),
    ("add_job(identifier => 't', job_key => {0})", 512, "job_key"),
    ("add_job(identifier => 't', queue_name => {0})", 200, "queue_name"),
    ("add_jobs({0}, array['1']::json[])", 126, "identifier"),
    ("get_job({0})", 200, "worker_id"),
    ("heartbeat({0})", 200, "worker_id"),
    ("begin_once('w', 1, {0})", 512, "effect_key"),
    ("set_task({0}, '{{}}')", 126, "task"),
    ("set_queue_limit({0}, 2)", 200, "queue_name"),
    (
        'add_scheduled_job(identifier => {0}, schedule_info => \'{{"every": "1 h"}}\')',
        126,
        "identifier",
    ),
    ("record_action({0}, 'did')", 200, "actor"),
]
NUMBERS = [
    ("get_jobs('w', job_limit => {0})", 10_000, "job_limit"),
    ("set_queue_limit('q', {0})", 10_000, "max_running"),
    ("prune(batch => {0})", 100_000, "batch"),
    ("list_jobs(most => {0})", 1000, "most"),
    ("list_finished(most => {0})", 10_000, "most"),
    ("redrive_jobs(most => {0})", 10_000, "most"),
    ('preview_schedule(\'{{"every": "1 h"}}\', {0})', 1000, "count"),
    ("reschedule_jobs('{{}}', attempts => {0})", 1_000_000, "attempts"),
]


@pytest.mark.parametrize("kind", ["lengths", "numbers"])
def test_names_and_numbers(kind: str, login: Login) -> None:
    operator = login("operator")
    for form, most, argument in LENGTHS if kind == "lengths" else NUMBERS:
        at, beyond = (
            (f"repeat('ü', {most})", f"repeat('ü', {most + 1})")
            if kind == "lengths"
            else (str(most), str(most + 1))
        )
        if "begin_once" not in form:  # there is no job 1
            operator.execute(f"select app_jobs.{form.format(at)}".encode())
        with pytest.raises(psycopg.errors.InvalidParameterValue) as caught:
            operator.execute(f"select app_jobs.{form.format(beyond)}".encode())
        message, hint = caught.value.diag.message_primary, caught.value.diag.message_hint
        assert message is not None
        assert hint is not None
        assert message.startswith(argument)
        assert f"{most + 1}" in message


def test_payloads(login: Login, database: str, admin: psycopg.Connection[Any]) -> None:
    """64 MB on every road in; attributes 1 MB. What is at the limit comes out again."""
    operator = login("operator")
    text = "x" * (64 * MEGABYTE - 2)
    with Client(database) as client:
        client.add_job(identifier="t", payload=text)
        job = client.get_job("w")
        assert job is not None
        assert job.payload == text
        client.complete_job("w", job.id)
    operator.execute("create temporary table ours (id integer, big text)")
    for n, form in enumerate(("row('', 't')", "fields('', 't', 'big')")):
        operator.execute(
            f"create trigger t{n} after insert on ours for each row when (new.id = {n})"
            f" execute function app_jobs.tg_add_job_with_{form}".encode()
        )
    operator.execute(
        "create trigger t2 after update on ours referencing new table as new_rows"
        " for each statement execute function app_jobs.tg_add_jobs_with_rows('', 't')"
    )
    operator.execute("insert into ours values (2, '')")
    operator.execute(
        "select app_jobs.add_job(identifier => 't', job_key => 'k', attributes => %s)",
        ['{"a": "%s"}' % ("x" * 600_000)],
    )
    big = f"concat('\"', repeat('x', {len(text) + 1}), '\"')::json"
    long = f"repeat('x', {len(text) + 1})"
    members = f"'identifier', 't', 'payload', {big}"
    spec = f"json_build_array(json_build_object({members}))"
    keyed = f"json_build_array(json_build_object({members}, 'job_key', 'l'))"
    large = "jsonb_build_object('b', repeat('x', 600000))"
    roads = [
        (f"select app_jobs.add_job(identifier => 't', payload => {big})", "payload"),
        (f"insert into ours values (0, {long})", "payload"),
        (
            f"select app_jobs.add_job(identifier => 't', attributes => {large} || {large}"
            " || jsonb_build_object('c', repeat('x', 600000)))",
            "attributes",
        ),
        (f"select app_jobs.set_attributes(id, {large}) from app_jobs.find_job('k')", "attributes"),
    ]
    if LONG:
        roads += [
            (f"select app_jobs.add_jobs('t', array['1', {big}])", "payload"),
            (f"select app_jobs.add_jobs({spec})", "specs[0]: payload"),
            (f"select app_jobs.add_jobs({keyed})", "specs[0]: payload"),
            (f"insert into ours values (1, {long})", "payload"),
            (f"update ours set big = {long}", "payload"),
            (
                "select app_jobs.add_scheduled_job(identifier => 't', schedule_info => "
                f"{EVERY}, payload => {big})",
                "payload",
            ),
        ]
    for statement, argument in roads:
        with pytest.raises(psycopg.errors.InvalidParameterValue) as caught:
            operator.execute(statement.encode())
        message, hint = caught.value.diag.message_primary, caught.value.diag.message_hint
        assert message is not None, statement
        assert message.startswith(f"{argument} has "), statement
        assert hint is not None
        assert " MB: keep large things elsewhere" in hint
    assert admin.execute("select count(*) from app_jobs.jobs").fetchone() == (1,)
    # A compressed one is as large as it will be when it is read.
    admin.execute("create table packed (big json)")
    admin.execute("insert into packed select %s::json", [f'"{text}xx"'])
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="payload has 67108866 bytes"):
        admin.execute("select app_jobs.add_job(identifier => 't', payload => big) from packed")


@pytest.mark.parametrize("options", [{"prefetch": 5000}, {"concurrency": 10_001}])
def test_workers(
    database: str,
    running: Callable[..., AbstractContextManager[Worker]],
    until: Callable[[str], None],
    options: dict[str, int],
) -> None:
    """A worker with the largest lots, or with more places than a claim may have jobs."""
    tasks = Tasks()
    done: list[int] = []
    sizes: list[int] = []

    @tasks.task("one")
    async def one(payload: int) -> None:
        done.append(payload)

    @tasks.batch_task("many", size=5000)
    async def many(payloads: list[int]) -> None:
        sizes.append(len(payloads))

    with Client(database) as client:
        client.add_jobs(identifier="one", payloads=range(10_002))
        client.add_jobs(identifier="many", payloads=range(5001))
    with running(tasks, **options):
        until("not exists (select from app_jobs.jobs)")
    assert sorted(done) == list(range(10_002))
    assert sum(sizes) == 5001
    assert max(sizes) <= 5000


def test_workers_beyond(database: str) -> None:
    tasks = Tasks()
    for size in (0, 5001):
        with pytest.raises(BadArgument, match=f"size is out of range: {size}") as caught:
            tasks.batch_task("many", size=size)
        assert caught.value.hint == "Give 1 to 5000."
    tasks.task("one")(print)
    for prefetch in (-1, 5001):
        with pytest.raises(BadArgument, match=f"prefetch is out of range: {prefetch}") as caught:
            Worker(database, tasks, prefetch=prefetch)
        assert caught.value.hint == "Give 0 to 5000."


def test_many_of_everything(login: Login, admin: psycopg.Connection[Any]) -> None:
    """Queues, tasks, workers, schedules; a claim of jobs of as many queues takes some."""
    operator = login("operator")
    lot = 1000  # the limit of a queue costs its lock until the transaction ends
    series = f"from generate_series(%(low)s + 1, %(low)s + {lot}) as n"
    for statement in (
        f"select count(app_jobs.set_task('task ' || n, '{{\"max_attempts\": 3}}')) {series}",
        f"select count(app_jobs.register_worker('worker ' || n, 'host', n)) {series}",
        f"select count(app_jobs.set_queue_limit('queue ' || n, 2)) {series}",
        "select count(app_jobs.add_scheduled_job(identifier => 'task ' || n, schedule_info =>"
        f" {EVERY})) {series}",
        "select count(*) from app_jobs.add_jobs((select json_agg(json_build_object('identifier',"
        f" 'task ' || n, 'queue_name', 'queue ' || n)) {series}))",
    ):
        for low in range(0, MANY, lot):
            assert operator.execute(statement.encode(), {"low": low}).fetchone() == (lot,)
    operator.execute("select app_jobs.tick()")
    for look in ("metrics", "doctor", "list_queues", "list_tasks"):
        operator.execute(f"select app_jobs.{look}()".encode())
    rest = MANY
    claims = []
    while rest > 0:
        claimed = operator.execute("select id from app_jobs.get_jobs('w', job_limit => 10000)")
        ids = [number for (number,) in claimed.fetchall()]
        assert ids
        claims.append(len(ids))
        done = operator.execute("select app_jobs.complete_jobs('w', %s)", [ids])
        assert len(done.fetchall()) == len(ids)
        rest -= len(ids)
    print(f"{MANY} queues: {len(claims)} claims, {max(claims)} jobs in the largest")
    assert admin.execute("select count(*) from app_jobs.jobs").fetchone() == (0,)


def test_few_locks() -> None:
    """A lock table smaller than the jobs' queues: a call meets fewer, the next one goes on."""
    jobs = f"from generate_series(1, {MANY}) as n, generate_series(1, 2)"
    with (
        throw_away(
            bin_dir=Path(os.environ["APP_JOBS_TEST_BIN"]),
            settings={"max_locks_per_transaction": "10", "max_connections": "10"},
        ) as dsn,
        psycopg.connect(dsn, autocommit=True) as connection,
    ):
        migrate.migrate(dsn, log=lambda _: None)
        connection.execute(
            "select from app_jobs.add_jobs((select json_agg(json_build_object("
            f"'identifier', 't', 'queue_name', 'queue ' || n)) {jobs}))".encode()
        )
        held: list[int] = []
        calls = 0

        def claim() -> int:
            claimed = connection.execute(
                "select id from app_jobs.get_jobs('w', job_limit => 10000)"
            )
            ids = [number for (number,) in claimed]
            held.extend(ids)
            return len(ids)

        # Within one transaction locks add up until there are no more: all of it is refused.
        connection.execute("begin")
        with pytest.raises(psycopg.errors.OutOfMemory) as caught:
            list(iter(claim, 0))
        connection.execute("rollback")
        hint = caught.value.diag.message_hint
        assert hint is not None
        assert "max_locks_per_transaction" in hint
        held.clear()
        while len(held) < MANY:
            assert claim()
            calls += 1
        assert connection.execute(
            "select count(*) from app_jobs.complete_jobs('w', %s)", [held]
        ).fetchone() == (MANY,)
        ready = "select count(*) from app_jobs.jobs where line = ''"
        while connection.execute(ready).fetchone() != (MANY,):
            assert connection.execute("select moved from app_jobs.tick()").fetchone() != (0,)
        ids = "array(select j.id from app_jobs.jobs as j)"
        cancelled = f"select count(*) from app_jobs.cancel_jobs({ids}, '')"
        assert connection.execute(cancelled.encode()).fetchone() == (MANY,)
        assert connection.execute("select count(*) from app_jobs.jobs").fetchone() == (0,)
        print(f"{MANY} queues, few locks: {calls} claims")


def test_a_gigabyte(login: Login, admin: psycopg.Connection[Any]) -> None:
    """Refused by us, or before by the server; the session goes on, and no other one notices."""
    if not LONG:
        pytest.skip("make hostile")
    producer = login("producer")
    pid = producer.info.backend_pid

    def peak() -> int:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmHWM"))

    print(f"backend before: {peak()} MB")
    for size in (100, 500, 1100):
        statement = f"concat('\"', repeat('x', {size} * {MEGABYTE}), '\"')::json"
        with pytest.raises((psycopg.errors.InvalidParameterValue, psycopg.OperationalError)) as got:
            producer.execute(
                f"select app_jobs.add_job(identifier => 't', payload => {statement})".encode()
            )
        print(f"{size} MB: {got.value.sqlstate} {got.value}; backend's peak {peak()} MB")
        assert got.value.sqlstate in ("22023", "54000", "53200")
        assert producer.execute("select 1").fetchone() == (1,)
    assert admin.execute("select count(*) from app_jobs.jobs").fetchone() == (0,)
