"""The clients: every function of the schema, its arguments, transactions, errors, versions."""

from __future__ import annotations

import ast
import asyncio
import inspect
import subprocess
import sys
import uuid
from datetime import datetime, timedelta, timezone
from typing import Any, cast

import psycopg
import pytest

import app_jobs
from app_jobs import (
    AsyncClient,
    Client,
    Progress,
    QueueSettings,
    RawJson,
    RunningJobs,
    TaskSettings,
    _sql,
)
from app_jobs.errors import (
    AlreadyScheduled,
    BadArgument,
    InDoubt,
    KeyInUse,
    NotPermitted,
    NotSupported,
    SchemaMissing,
    SchemaTooNew,
    SchemaTooOld,
    UnknownJob,
)

TENANT = uuid.uuid4()
MINUTE = timedelta(minutes=1)


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_clients_have_the_functions_of_the_database(
    kind: type, connection: psycopg.Connection[Any]
) -> None:
    rows = connection.execute(
        """
        select p.proname, array_agg(distinct a.name)
        from pg_proc as p
        left join lateral unnest(p.proargnames, p.proargmodes) as a(name, mode)
            on coalesce(a.mode, 'i') = 'i'
        where
            p.pronamespace = 'app_jobs'::regnamespace
            and p.prorettype <> 'trigger'::regtype
            and has_function_privilege('app_jobs_operator', p.oid, 'execute')
            -- is called by a check of tasks
            and p.proname <> 'backoff_delay'
        group by 1
        """
    ).fetchall()
    in_database = {name: {a for a in arguments if a} for name, arguments in rows}
    in_table: dict[str, set[str]] = {}
    for function in _sql.FUNCTIONS:
        in_table.setdefault(function.name, set()).update(function.arguments)
    assert in_table == in_database

    offered = _parameters(kind)
    offered["add_job"].remove("idempotency_key")  # which says job_key and job_key_mode in one word
    for name, arguments in in_database.items():
        # from_ is `from`, which no parameter can be
        given = {parameter.rstrip("_") for parameter in offered[name]}
        assert given == arguments | {"self", "connection"}, name


def _parameters(kind: type) -> dict[str, set[str]]:
    """The parameters of each method, of all its overloads together."""
    found: dict[str, set[str]] = {}
    for node in ast.walk(ast.parse(inspect.getsource(kind))):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            names = {a.arg for a in (*node.args.args, *node.args.kwonlyargs)}
            found.setdefault(node.name, set()).update(names)
    return found


def test_names_are_imported_when_they_are_asked_for() -> None:
    first = "import sys, app_jobs; print('psycopg' in sys.modules, 'app_jobs._sql' in sys.modules)"
    names = "import app_jobs; print(*(getattr(app_jobs, n).__name__ for n in app_jobs.__all__))"
    modules = "import app_jobs; print(app_jobs.errors.__name__, app_jobs.tasks.__name__)"
    unknown = "import app_jobs; print(hasattr(app_jobs, 'Jobs'), 'Client' in dir(app_jobs))"

    def said(script: str) -> list[str]:
        return subprocess.check_output([sys.executable, "-c", script], text=True).split()

    assert said(first) == ["False", "False"]
    assert said(names) == app_jobs.__all__
    assert said(modules) == ["app_jobs.errors", "app_jobs.tasks"]
    assert said(unknown) == ["False", "True"]


def test_what_type_checkers_are_told_to_import_is_what_is_imported() -> None:
    (checked,) = (
        node
        for node in ast.parse(inspect.getsource(app_jobs)).body
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name)
    )
    told = {
        name.name: node.module
        for node in checked.body
        if isinstance(node, ast.ImportFrom)
        for name in node.names
    }
    assert told == {
        name: f"app_jobs.{module}"
        for module, names in app_jobs._NAMES_IN.items()
        for name in names.split()
    }
    assert sorted(told) == app_jobs.__all__


def test_add_job_keeps_every_argument(client: Client) -> None:
    moment = datetime(2031, 2, 3, 4, 5, 6, 789, tzinfo=timezone.utc)
    job = client.add_job(
        TENANT,
        "send_email",
        {"to": ["ä", None, 1.5]},
        job_key="key",
        queue_name="queue",
        run_at=moment,
        max_attempts=3,
        priority=-2,
        attributes={"a": 1},
        retry_after=timedelta(seconds=90),
    )
    assert (job.database_id, job.task_identifier, job.payload) == (
        TENANT,
        "send_email",
        {"to": ["ä", None, 1.5]},
    )
    assert (job.key, job.queue_name, job.run_at) == ("key", "queue", moment)
    assert (job.max_attempts, job.priority, job.attributes) == (3, -2, {"a": 1})
    assert (job.retry_after, job.attempts, job.lease) == (timedelta(seconds=90), 0, 0)
    assert client.find_job("key", TENANT) == job
    assert client.find_job("key") is None


def test_a_raw_payload_is_kept_byte_for_byte(
    client: Client, connection: psycopg.Connection[Any]
) -> None:
    client.add_job(identifier="task", payload=RawJson('{ "n" :1.00 }'))
    assert connection.execute("select payload::text from app_jobs.jobs").fetchone() == (
        '{ "n" :1.00 }',
    )


def test_connection_settings_do_not_change_what_comes_back(database: str) -> None:
    with psycopg.connect(database) as connection, Client() as client:
        connection.execute("set datestyle = 'sql, dmy'; set intervalstyle = 'sql_standard'")
        delay = timedelta(days=1, seconds=2)
        job = client.add_job(identifier="task", retry_after=delay, connection=connection)
        assert job.retry_after == delay
        assert abs(job.run_at - datetime.now(timezone.utc)) < 5 * MINUTE


def test_add_jobs_from_specs_returns_ids_in_order(client: Client) -> None:
    ids = client.add_jobs(
        [
            {"identifier": "a", "payload": {"n": 1}, "run_at": datetime.now(timezone.utc) + MINUTE},
            {"identifier": "b", "db_id": TENANT, "retry_after": MINUTE, "attributes": {"x": [1]}},
            {"identifier": "c", "payload": RawJson("[1.0]"), "job_key": "k"},
        ]
    )
    assert ids == sorted(ids)
    assert [job.id for job in client.get_jobs("w", job_limit=5)] == ids[1:]
    found = client.find_job("k")
    assert found is not None
    assert (found.id, found.payload) == (ids[2], [1.0])


def test_add_jobs_of_one_task(client: Client) -> None:
    ids = client.add_jobs(identifier="task", payloads=[{"n": 1}, [2], "three"], priority=4)
    jobs = client.get_jobs("w", ["task"], MINUTE, 10)
    assert [job.id for job in jobs] == ids
    assert [job.payload for job in jobs] == [{"n": 1}, [2], "three"]
    assert {job.priority for job in jobs} == {4}


def test_payloads_of_one_task_are_sent_together_or_as_they_are(
    client: Client, connection: psycopg.Connection[Any]
) -> None:
    def sent(payloads: Any) -> list[str]:
        ids = client.add_jobs(identifier="task", payloads=payloads)
        rows = connection.execute(
            "select payload::text from app_jobs.jobs where id = any(%s) order by id", [ids]
        )
        return [text for (text,) in rows]

    assert sent([{"n": [1, "ü"]}, None, "1,2"]) == ['{"n":[1,"\\u00fc"]}', "{}", '"1,2"']
    assert sent(n for n in range(3)) == ["0", "1", "2"]
    assert sent([]) == []
    # JSON text is kept byte for byte, and one element is one job
    assert sent([RawJson(" [ 1 ] "), {"n": 1}, None]) == [" [ 1 ] ", '{"n":1}', "{}"]
    with pytest.raises(psycopg.DataError, match="json"):
        sent([RawJson("1,2")])
    with pytest.raises(BadArgument, match=r"payloads\[1\] is not JSON"):
        sent([1, {2, 3}, 4])
    with pytest.raises(BadArgument, match="payloads is null"):
        sent(None)


def test_what_stands_in_an_array_comes_as_it_went(client: Client) -> None:
    nasty = ['"', "\\", '\\"', "{a,b}", "null", " ", "a\tb", "ü", "'", "%s"]
    client.add_jobs(identifier="task", payloads=[*nasty, "", None, RawJson('{ "a\\n" : "\\"" }')])
    for name in nasty:
        client.add_job(identifier=name)
    claimed = client.get_jobs("w", nasty, MINUTE, 100)
    assert [job.task_identifier for job in claimed] == nasty
    jobs = client.get_jobs("w", ["task"], MINUTE, 100)
    assert [job.payload for job in jobs] == [*nasty, "", {}, {"a\n": '"'}]
    with pytest.raises(BadArgument, match=r"task_identifiers\[1\] is no text: 1"):
        client.get_jobs("w", cast("list[str]", ["a", 1]), MINUTE, 1)


def test_add_jobs_is_all_or_nothing_and_names_the_bad_element(client: Client) -> None:
    with pytest.raises(BadArgument, match="1"):
        client.add_jobs([{"identifier": "good"}, {"identifier": ""}])
    assert client.get_job("w") is None


def test_life_of_a_job(client: Client) -> None:
    client.register_worker("w", "host", 1, ["task"])
    client.set_worker_idle("w", True)
    client.add_job(identifier="task", job_key="k")
    job = client.get_job("w", ["task"], MINUTE)
    assert job is not None
    assert (job.attempts, job.locked_by) == (1, "w")
    assert client.heartbeat("w", [job.id], MINUTE) == [job.id]
    assert client.fail_job("w", job.id, "no", job.lease, timedelta(0), "why") is not None
    job = client.get_job("w")
    assert job is not None
    assert (job.attempts, job.last_error) == (2, "no")
    assert client.snooze_job("w", job.id, timedelta(0), job.lease) is not None
    (job,) = client.get_jobs("w", None, MINUTE, 2)
    assert job.attempts == 2
    assert client.release_jobs("w") == [job.id]
    (job,) = client.get_jobs("w")
    assert client.complete_job("w", job.id, job.lease - 1) is None
    assert client.fail_jobs("w", [{"job_id": job.id, "lease": job.lease - 1}]) == []
    assert client.complete_jobs("w", [job.id], [job.lease], [{"done": True}]) == [job.id]
    assert client.complete_job("w", job.id, job.lease) is None
    assert client.get_job("w") is None
    assert client.tick().next_due_at is None


def test_metrics(client: Client) -> None:
    client.add_job(TENANT, "task", queue_name="queue")
    client.add_job(identifier="task", run_at=datetime.now(timezone.utc) - MINUTE)
    client.add_job(identifier="task", run_at=datetime.now(timezone.utc) + MINUTE)
    alone, queued = sorted(client.metrics(), key=lambda m: m.queue_name or "")
    assert (alone.database_id, alone.task_identifier, alone.queue_name) == (None, "task", None)
    assert (alone.ready, alone.scheduled, alone.running, alone.parked) == (1, 1, 0, 0)
    assert (alone.expired, alone.failed_1h) == (0, 0)
    assert alone.oldest_ready_age is not None
    assert MINUTE <= alone.oldest_ready_age < 2 * MINUTE
    assert (queued.database_id, queued.queue_name, queued.ready) == (TENANT, "queue", 1)


def test_running_jobs(client: Client) -> None:
    client.add_jobs(identifier="task", payloads=[1, 2, 3])
    assert client.running_jobs() == []
    first, _ = client.get_jobs("worker", job_limit=2)
    (running,) = client.running_jobs()
    assert first.locked_at is not None
    assert running == RunningJobs("worker", "task", 2, first.locked_at)


def test_lists(client: Client) -> None:
    client.set_queue_limit("q", 2)
    ids = [client.add_job(identifier="t", queue_name="q" if n else None).id for n in range(3)]
    assert client.get_job("w", ["t"]) is not None
    found = client.list_jobs(task="t", most=2)
    assert [(job.id, job.state) for job in found] == [(ids[2], "ready"), (ids[1], "ready")]
    (last,) = client.list_jobs(task="t", before=found.before)
    assert (last.id, last.state, last.held_by) == (ids[0], "running", "w")
    assert client.list_jobs(search="nothing").before is None
    (queue,) = client.list_queues()
    assert (queue.queue_name, queue.ready, queue.max_running) == ("q", 2, 2)
    (task,) = client.list_tasks()
    assert (task.task_identifier, task.ready, task.running, task.paused) == ("t", 2, 1, False)


def test_dead_letters_go_back_to_work(client: Client) -> None:
    ids = [client.add_job(identifier="t").id for _ in range(3)]
    client.permanently_fail_jobs(ids, "no route")
    found = client.list_finished(state="failed", search="route", most=2)
    assert [job.id for job in found] == [ids[2], ids[1]]
    rest = client.list_finished(before=found.before_time, before_id=found.before)
    assert [job.id for job in rest] == [ids[0]]
    assert [job.id for job in client.redrive_jobs(task="t", dry_run=True)] == ids[::-1]
    assert len(client.redrive_jobs(task="t", per_second=0.5)) == 3
    assert [job.state for job in client.list_jobs()] == ["scheduled", "scheduled", "ready"]


def test_actions_are_recorded(client: Client, connection: psycopg.Connection[Any]) -> None:
    with connection.transaction(force_rollback=True):
        assert client.record_action("ada", "cancel_jobs", {"job_ids": [1]}, connection=connection)
        found = connection.execute(
            "select actor, action, details from app_jobs.operator_actions"
        ).fetchall()
    assert found == [("ada", "cancel_jobs", {"job_ids": [1]})]


def test_task_stats(client: Client) -> None:
    bounds = client.histogram_bounds()
    histogram = [0] * 8 + [4] + [0] * (len(bounds) - 8)
    client.record_stats(
        "worker",
        [{"task_identifier": "task", "completed": 4, "wait_histogram": histogram}],
    )
    now = datetime.now(timezone.utc)
    (stats,) = client.task_stats(now - MINUTE, now + MINUTE, 60 * MINUTE)
    assert (stats.task_identifier, stats.completed, stats.failed, stats.retried) == (
        "task",
        4,
        0,
        0,
    )
    assert (stats.wait_histogram, sum(stats.run_histogram)) == (histogram, 0)
    assert (stats.at.minute, stats.at.second) == (0, 0)
    median = client.histogram_quantile(stats.wait_histogram, 0.5)
    assert median == (bounds[7] + bounds[8]) / 2


def test_depths(client: Client, database: str) -> None:
    client.add_job(identifier="task", queue_name="queue")
    client.tick()
    with psycopg.connect(database) as other:
        # nobody has ticked for a while
        other.execute("delete from app_jobs.depth_figures")
        other.execute("select setval('app_jobs.stats_merged_to', 1)")
    client.tick()
    now = datetime.now(timezone.utc)
    depths = client.depths(now - 60 * MINUTE, now + MINUTE, 24 * 60 * MINUTE)
    assert [(depth.kind, depth.name, depth.ready, depth.running) for depth in depths] == [
        ("queue", "queue", 1, 0),
        ("task", "task", 1, 0),
    ]
    assert all(depth.oldest_ready_age for depth in depths)


def test_vital_signs(client: Client, database: str) -> None:
    client.tick()
    with psycopg.connect(database) as other:
        other.execute("select pg_current_xact_id()")
        signs = client.vital_signs()
    assert signs.ticked_ago is not None
    assert signs.ticked_ago < MINUTE
    assert (signs.schedules_behind, signs.schedule_delay) == (0, 0 * MINUTE)
    assert 0 * MINUTE < signs.oldest_transaction < MINUTE
    assert signs.sees_sessions


def test_progress(client: Client) -> None:
    (job,) = client.add_jobs(identifier="task", payloads=[1])
    client.register_worker("worker")
    client.get_job("worker")
    client.set_progress("worker", [{"job_id": job, "lease": 1, "done": 0.5, "note": "half"}])
    (progress,) = client.progress()
    assert progress == Progress("worker", job, "task", 0.5, "half", progress.since)


def test_explain_job(client: Client) -> None:
    job = client.add_job(identifier="task")
    assert client.explain_job(job.id).startswith(f"Job {job.id} is ready since ")


def test_an_idempotency_key(client: Client, connection: psycopg.Connection[Any]) -> None:
    connection.execute(
        "insert into app_jobs.tasks (task_identifier, keep_completed) values ('task', '1 hour')"
    )
    job = client.add_job(identifier="task", payload=1, idempotency_key="k")
    assert job.key == "k"
    assert client.add_job(identifier="task", payload=2, idempotency_key="k") == job
    client.get_job("w")
    client.complete_job("w", job.id)
    again = client.add_job(identifier="task", payload=2, idempotency_key="k")
    assert (again.id, again.payload) == (job.id, 1), "finished, and still kept"
    assert client.add_job(TENANT, "task", idempotency_key="k").id != job.id
    with pytest.raises(BadArgument, match="idempotency_key is 'k'"):
        client.add_job(identifier="task", idempotency_key="k", job_key="k")
    with pytest.raises(BadArgument, match="idempotency_key is 'k'"):
        client.add_job(identifier="task", idempotency_key="k", job_key_mode="keep")


def test_an_effect_happens_once(client: Client) -> None:
    job_id = client.add_job(identifier="task").id
    client.get_job("w")
    assert client.begin_once("w", job_id, "email", 1) == (True, None)
    with pytest.raises(InDoubt, match="email") as doubt:
        client.begin_once("w", job_id, "email")
    assert "forget_once" in str(doubt.value.hint)
    client.finish_once("w", job_id, "email", {"no": 7}, 1)
    assert client.begin_once("w", job_id, "email") == (False, {"no": 7})
    assert not client.forget_once(job_id, "email", 2)
    assert client.forget_once(job_id, "email")
    with pytest.raises(NotSupported):
        client.begin_once("other", job_id, "email")
    with pytest.raises(UnknownJob):
        client.finish_once("w", 0, "email")


def test_a_held_job_ends_with_the_callers_transaction(database: str, client: Client) -> None:
    job_id = client.add_job(identifier="task").id
    client.get_job("w")
    with psycopg.connect(database) as mine:
        assert not client.hold_job("w", job_id, 2, connection=mine)
        assert client.hold_job("w", job_id, 1, connection=mine)
        assert client.heartbeat("w") == [job_id]
        assert client.complete_job("w", job_id, 1) is None, "another session passes it by"
        assert client.complete_job("w", job_id, 1, connection=mine)
        mine.rollback()
    assert client.complete_job("w", job_id, 1)


def test_one_job_by_id(client: Client) -> None:
    moment = datetime(2031, 2, 3, tzinfo=timezone.utc)
    job_id = client.add_job(TENANT, "task", [1], job_key="k", attributes={"a": 1, "b": 1}).id
    assert client.set_attributes(job_id, {"b": 2, "c": None})
    assert client.set_run_at(job_id, moment)
    assert client.set_retry_after(job_id, MINUTE)
    job = client.job_details(job_id)
    assert job is not None
    assert (job.id, job.task_identifier, job.state) == (job_id, "task", "created")
    assert (job.payload, job.attributes) == ([1], {"a": 1, "b": 2, "c": None})
    assert (job.run_at, job.retry_after, job.started_at) == (moment, MINUTE, None)
    assert (job.database_id, job.key, job.attempts) == (TENANT, "k", 0)
    assert not client.move_job_to_processing(job_id)

    assert client.set_run_at(job_id, datetime.now(timezone.utc) - MINUTE)
    client.get_job("w")
    assert client.move_job_to_processing(job_id)
    job = client.job_details(job_id)
    assert job is not None
    assert (job.state, job.locked_by, job.lease_expires_at) == ("processing", "w", None)

    assert client.move_job_to_done(job_id)
    assert not client.move_job_to_failed(job_id)
    job = client.job_details(job_id)
    assert job is not None
    assert (job.state, job.finished_by, job.result) == ("completed", "w", None)
    assert client.delete_job(job_id)
    assert not client.delete_job(job_id)
    assert client.job_details(job_id) is None

    job_id = client.add_job(identifier="task").id
    assert client.move_job_to_failed(job_id, delete_on_fail=True)
    assert client.job_details(job_id) is None


def test_details_show_the_result(client: Client, connection: psycopg.Connection[Any]) -> None:
    connection.execute(
        "insert into app_jobs.tasks (task_identifier, keep_completed) values ('task', '1 hour')"
    )
    job_id = client.add_job(identifier="task").id
    client.get_job("w")
    client.complete_job("w", job_id, 1, {"x": [None]})
    job = client.job_details(job_id)
    assert job is not None
    assert (job.state, job.result) == ("completed", {"x": [None]})


def test_cancel_by_key(client: Client) -> None:
    job = client.add_job(identifier="task", job_key="k")
    assert client.cancel_job("k", reason="not needed") == job
    assert client.cancel_job("k") is None


def test_jobs_are_steered_by_id(client: Client) -> None:
    ids = client.add_jobs(identifier="t", payloads=[1, 2, 3, 4, 5])
    assert [job.id for job in client.complete_jobs(job_ids=ids[:1])] == ids[:1]
    (failed,) = client.permanently_fail_jobs(ids[1:2], "no")
    (cancelled,) = client.cancel_jobs(ids[2:3], reason="enough")
    assert (failed.payload, cancelled.payload) == (2, 3)
    later = datetime.now(timezone.utc) + MINUTE
    (changed,) = client.reschedule_jobs(ids[3:4], later, 1, 2, 3)
    assert (changed.run_at, changed.priority, changed.attempts, changed.max_attempts) == (
        later,
        1,
        2,
        3,
    )
    (claimed,) = client.get_jobs("w", job_limit=5)
    assert claimed.id == ids[4]
    assert [job.id for job in client.retry_jobs(ids)] == ids[1:3]
    assert client.complete_jobs("w", ids, [1] * 5) == ids[4:]
    with pytest.raises(BadArgument, match="job_ids is null"):
        client.complete_jobs(job_ids=None)  # type: ignore[call-overload]
    with pytest.raises(BadArgument, match="leases"):
        client.complete_jobs(job_ids=ids, leases=[1] * 5)  # type: ignore[call-overload]


def test_finished_jobs_are_pruned(client: Client) -> None:
    client.permanently_fail_jobs(client.add_jobs(identifier="t", payloads=[1, 2, 3]))
    assert client.prune() == 0
    assert client.prune(timedelta(days=1)) == 0
    assert client.prune(timedelta(0), batch=2) == 2
    assert client.prune(timedelta(0), batch=2) == 1


def test_a_key_in_use_is_an_error(client: Client) -> None:
    dead = client.add_job(identifier="t", job_key="k")
    client.permanently_fail_jobs([dead.id])
    client.add_job(identifier="t", job_key="k")
    with pytest.raises(KeyInUse, match=f'job {dead.id} has key "k"'):
        client.retry_jobs([dead.id])


def test_settings_of_queues_and_tasks(client: Client) -> None:
    assert client.pause_queue("q", TENANT) == QueueSettings(TENANT, "q", 1, True)
    assert client.resume_queue("q", str(TENANT)) == QueueSettings(TENANT, "q", 1, False)
    assert client.set_queue_limit("q", 3) == QueueSettings(None, "q", 3, False)

    settings = {"timeout": 90 * MINUTE, "backoff": {"type": "linear"}, "keep_completed": "1 day"}
    found = client.set_task("t", settings)
    assert (found.task_identifier, found.timeout, found.backoff, found.keep_completed) == (
        "t",
        90 * MINUTE,
        {"type": "linear"},
        timedelta(days=1),
    )
    assert client.pause_task("t").paused
    assert not client.resume_task("t").paused
    defaults = TaskSettings("t", None, None, None, None, timedelta(0), timedelta(days=30), False)
    assert client.set_task("t", dict.fromkeys(settings)) == defaults
    with pytest.raises(BadArgument, match="max_attempts is 0") as caught:
        client.set_task("t", {"max_attempts": 0})
    assert caught.value.hint == "Give an integer, 1 or more, or null for the default."
    assert client.sweep() == 0


def test_times_of_a_schedule(client: Client) -> None:
    noon = datetime(2026, 3, 28, 12, tzinfo=timezone.utc)
    rule = {"rule": "30 2 * * *", "end": noon + timedelta(days=2)}
    first = datetime(2026, 3, 29, 1, tzinfo=timezone.utc)
    assert client.next_run_at(rule, noon, "Europe/Berlin") == first
    assert client.preview_schedule(rule, 5, noon, "Europe/Berlin") == [
        first,
        first.replace(day=30, hour=0, minute=30),
    ]
    assert client.next_run_at({"at": noon}, noon) is None
    every = {"every": timedelta(seconds=90), "start": noon, "end": None}
    assert client.next_run_at(every, noon) == noon + timedelta(seconds=90)
    assert client.next_run_at(RawJson('{"every": "1 hour"}'), noon) == noon + timedelta(hours=1)
    for wrong in (None, [], {"hour": 25}):
        with pytest.raises(BadArgument, match="schedule_info"):
            client.next_run_at(wrong)  # type: ignore[arg-type]


def test_a_job_joins_the_callers_transaction(database: str, client: Client) -> None:
    with psycopg.connect(database) as connection:
        client.add_job(identifier="task", job_key="lost", connection=connection)
        assert connection.info.transaction_status == psycopg.pq.TransactionStatus.INTRANS
        assert client.find_job("lost") is None
        connection.rollback()
        client.add_job(identifier="task", job_key="kept", connection=connection)
        connection.commit()
        assert not connection.closed
    assert client.find_job("lost") is None
    assert client.find_job("kept") is not None


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({}, "identifier"),
        ({"identifier": ""}, "identifier"),
        ({"identifier": "x" * 127}, "identifier"),
        ({"identifier": "x", "job_key": "k" * 513}, "job_key"),
        ({"identifier": "x", "max_attempts": 0}, "max_attempts"),
        ({"identifier": "x", "job_key": "k", "job_key_mode": "maybe"}, "job_key_mode"),
        ({"identifier": "x", "payload": {1, 2}}, "payload"),
        ({"identifier": "x", "payload": float("nan")}, "payload"),
        ({"identifier": "x", "run_at": datetime(2030, 1, 1)}, "run_at"),  # noqa: DTZ001
        ({"db_id": "send_email", "identifier": "x"}, "db_id"),
    ],
)
def test_bad_arguments_are_named(client: Client, arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(BadArgument, match=named) as caught:
        client.add_job(**arguments)
    assert caught.value.sqlstate in ("22023", "22004")
    assert caught.value.hint
    assert isinstance(caught.value, ValueError)


def test_bad_arguments_of_workers(client: Client) -> None:
    for call in (
        lambda: client.get_job(""),
        lambda: client.get_jobs("w", job_limit=0),
        lambda: client.get_jobs("w", job_limit=10_001),
        lambda: client.get_jobs("w", job_expiry=timedelta(0)),
        lambda: client.add_jobs([{"identifier": "x"}], identifier="x"),  # type: ignore[call-overload]
        client.add_jobs,
        lambda: client.add_jobs([1]),  # type: ignore[list-item]
    ):
        with pytest.raises(BadArgument) as caught:
            call()
        assert caught.value.hint


def test_add_scheduled_job_keeps_every_argument(client: Client) -> None:
    rule = {"every": "1 hour"}
    schedule = client.add_scheduled_job(
        TENANT,
        "report",
        {"to": ["ä"]},
        rule,
        job_key="nightly",
        queue_name="queue",
        max_attempts=3,
        priority=-2,
        time_zone="Europe/Berlin",
        missed="all",
        attributes={"a": 1},
        overlap="skip",
    )
    assert (schedule.database_id, schedule.task_identifier, schedule.payload) == (
        TENANT,
        "report",
        {"to": ["ä"]},
    )
    assert (schedule.schedule_info, schedule.key, schedule.time_zone) == (
        rule,
        "nightly",
        "Europe/Berlin",
    )
    assert (schedule.queue_name, schedule.max_attempts, schedule.priority) == ("queue", 3, -2)
    assert (schedule.missed, schedule.overlap, schedule.attributes) == ("all", "skip", {"a": 1})
    assert (schedule.paused, schedule.locked_by, schedule.last_scheduled) == (False, None, None)
    assert schedule.next_run_at is not None
    assert schedule.next_run_at > datetime.now(timezone.utc)
    other = client.add_scheduled_job(identifier="other", schedule_info=rule)
    assert client.list_scheduled_jobs() == [schedule, other]
    assert client.list_scheduled_jobs("night") == [schedule]
    with pytest.raises(BadArgument, match="missed"):
        client.add_scheduled_job(identifier="report", schedule_info=rule, missed="never")


def test_due_schedules_and_schedulers_outside(
    client: Client, connection: psycopg.Connection[Any]
) -> None:
    schedule = client.add_scheduled_job(identifier="report", schedule_info={"every": "1 hour"})
    assert client.run_due_schedules() == []
    connection.execute("update app_jobs.scheduled_jobs set next_run_at = now()")
    (job,) = client.run_due_schedules()
    assert job.attributes["schedule"]["id"] == schedule.id
    assert datetime.fromisoformat(job.attributes["schedule"]["due_at"]) == job.run_at
    with pytest.raises(AlreadyScheduled):
        client.run_scheduled_job(schedule.id)
    assert client.get_scheduled_job("outside", ["other"]) is None
    taken = client.get_scheduled_job("outside")
    assert taken is not None
    assert (taken.id, taken.locked_by) == (schedule.id, "outside")
    assert client.get_scheduled_job("outside") is None
    connection.execute("delete from app_jobs.jobs")
    assert client.run_scheduled_job(schedule.id).task_identifier == "report"
    assert client.release_scheduled_jobs("outside", [schedule.id]) == [schedule.id]
    with pytest.raises(UnknownJob):
        client.run_scheduled_job(-1)


def test_a_missing_right(database: str, connection: psycopg.Connection[Any]) -> None:
    with psycopg.connect(database) as other, Client() as client:
        other.execute("set role app_jobs_producer")
        client.add_job(identifier="task", connection=other)
        with pytest.raises(NotPermitted) as caught:
            client.get_job("w", connection=other)
        assert caught.value.sqlstate == "42501"


def test_a_database_without_the_schema(empty_database: str) -> None:
    with Client(empty_database) as client, pytest.raises(SchemaMissing, match="app_jobs") as caught:
        client.get_job("w")
    assert "migrate" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("schema", "client", "error"),
    [
        ("0.1.0", "0.1.7", None),
        ("0.2.3", "0.1.0", None),
        ("0.1.9", "0.2.0", SchemaTooOld),
        ("0.3.0", "0.1.9", SchemaTooNew),
        ("1.0.0", "0.9.0", SchemaTooNew),
    ],
)
def test_which_versions_go_together(schema: str, client: str, error: type | None) -> None:
    if error is None:
        _sql.check_version(schema, client)
    else:
        with pytest.raises(error) as caught:
            _sql.check_version(schema, client)
        assert caught.value.hint


def test_the_version_is_checked_at_the_first_call(
    database: str, connection: psycopg.Connection[Any]
) -> None:
    connection.execute(
        "create or replace function app_jobs.version() returns text language sql immutable"
        " as $$ select '9.0.0' $$"
    )
    with Client(database) as client, pytest.raises(SchemaTooNew, match=r"9\.0\.0"):
        client.add_job(identifier="task")


def test_a_lost_connection_comes_back(
    database: str, client: Client, connection: psycopg.Connection[Any]
) -> None:
    client.add_job(identifier="task")
    connection.execute(
        "select pg_terminate_backend(pid, 5000) from pg_stat_activity"
        " where datname = current_database() and pid <> pg_backend_pid()"
    )
    client.add_job(identifier="task")
    assert len(client.get_jobs("w", job_limit=5)) == 2


def test_async_client(database: str) -> None:
    async def main() -> None:
        async with AsyncClient(database) as client:
            assert await client.version() == app_jobs.Client(database).version()
            await client.add_job(identifier="task", payload=[1])
            async with await psycopg.AsyncConnection.connect(database) as connection:
                await client.add_job(identifier="lost", connection=connection)
                await connection.rollback()
            job = await client.get_job("w")
            assert job is not None
            assert (job.task_identifier, job.payload) == ("task", [1])
            assert await client.get_job("w") is None
            with pytest.raises(BadArgument):
                await client.add_job(identifier="")

    asyncio.run(main())
