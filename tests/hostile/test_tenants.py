"""Two tenants with the same keys, queues and tasks: neither meets the other's jobs.

The tenant is an argument, not a right: whoever may call a function may name any tenant. What is
shown here is that who names their own never touches another's.
"""

from __future__ import annotations

import json
from typing import Any

import psycopg
from users import Login

OURS, THEIRS = (f"{n * 8}-{n * 4}-{n * 4}-{n * 4}-{n * 12}" for n in "12")
TENANTS: list[str | None] = [OURS, THEIRS, None]
# Every function that takes a key, a queue or a tenant has its test here.
TESTED = {
    *("add_job", "add_jobs", "find_job", "cancel_job"),
    *("pause_queue", "resume_queue", "set_queue_limit"),
    *("list_jobs", "list_finished", "redrive_jobs", "add_scheduled_job"),
}


def test_each_function_that_takes_a_tenant_is_here(admin: psycopg.Connection[Any]) -> None:
    found = admin.execute(
        "select distinct proname from pg_proc where pronamespace = 'app_jobs'::regnamespace and"
        " proargnames[:pronargs] && array['db_id', 'job_key', 'queue_name', 'queue']"
        " and has_function_privilege('app_jobs_operator', oid, 'execute')"
    )
    assert {name for (name,) in found} == TESTED


def add(
    connection: psycopg.Connection[Any], tenant: str | None, key: str | None, mode: str = "replace"
) -> int:
    (row,) = connection.execute(
        "select id from app_jobs.add_job(%s, 't', %s, %s, 'q', job_key_mode => %s)",
        [tenant, json.dumps({"of": str(tenant)}), key, mode],
    ).fetchall()
    return int(row[0])


def test_keys(login: Login) -> None:
    producer = login("producer")
    for mode in ("replace", "preserve_run_at", "keep", "once"):
        ids = [add(producer, tenant, mode, mode) for tenant in TENANTS]
        assert len(set(ids)) == 3
        again = [add(producer, tenant, mode, mode) for tenant in TENANTS]
        assert again == ids
        find = "select id, payload ->> 'of' from app_jobs.find_job(%s, %s)"
        found = [producer.execute(find, [mode, tenant]).fetchone() for tenant in TENANTS]
        assert found == [(n, str(tenant)) for n, tenant in zip(ids, TENANTS, strict=True)]
        cancel = "select id from app_jobs.cancel_job(%s, %s)"
        assert producer.execute(cancel, [mode, OURS]).fetchone() == (ids[0],)
        assert producer.execute(cancel, [mode, OURS]).fetchone() == (None,)
        assert producer.execute(find, [mode, OURS]).fetchone() == (None, None)
        left = [producer.execute(find, [mode, tenant]).fetchone() for tenant in TENANTS[1:]]
        assert left == found[1:]
    # a finished one counts for its own tenant alone
    assert add(producer, OURS, "once", "once") != add(producer, None, "once", "once")


def test_add_jobs(login: Login) -> None:
    producer = login("producer")
    specs = ", ".join(
        '{"identifier": "t", "job_key": "k", "db_id": %s}' % (f'"{t}"' if t else "null")
        for t in TENANTS
    )
    ids = producer.execute("select app_jobs.add_jobs(%s::json)", [f"[{specs}]"]).fetchall()
    assert len(set(ids)) == 3
    assert producer.execute("select app_jobs.add_jobs(%s::json)", [f"[{specs}]"]).fetchall() == ids


def test_an_open_transaction_blocks_only_its_own_tenant(
    dsn_of: Any, login: Login, admin: psycopg.Connection[Any]
) -> None:
    """A key that is being added, replaced or cancelled, a queue that is being claimed."""
    add(login("producer"), OURS, "there")
    with psycopg.connect(dsn_of("operator")) as slow:
        slow.execute("select app_jobs.cancel_job('there', %s)", [OURS])
        add(slow, OURS, "new")
        slow.execute("select app_jobs.get_jobs('w', job_limit => 10)")
        slow.execute("select app_jobs.pause_queue('q', %s)", [OURS])
        other = login("operator")
        other.execute("set lock_timeout = '1 ms'")
        for tenant in (THEIRS, None):
            for key in ("there", "new"):
                add(other, tenant, key)
                add(other, tenant, key, "keep")
            other.execute("select app_jobs.cancel_job('new', %s)", [tenant])
            claimed = other.execute(
                "select database_id::text from app_jobs.get_jobs('v', job_limit => 1)"
            ).fetchall()
            assert claimed == [(tenant,)]
            other.execute("select app_jobs.set_queue_limit('q', 2, %s)", [tenant])
            other.execute("select app_jobs.release_jobs('v')")
            other.execute("select app_jobs.cancel_job('there', %s)", [tenant])


def test_queues(login: Login) -> None:
    operator = login("operator")
    for tenant in TENANTS:
        for _ in range(2):
            add(operator, tenant, None)
    # one of each tenant: three queues, not one
    claim = "select database_id::text from app_jobs.get_jobs('w', job_limit => 10)"
    assert sorted(map(str, operator.execute(claim).fetchall())) == sorted(
        str((tenant,)) for tenant in TENANTS
    )
    operator.execute("select app_jobs.release_jobs('w')")
    operator.execute("select app_jobs.pause_queue('q', %s)", [OURS])
    operator.execute("select app_jobs.set_queue_limit('q', 2, %s)", [THEIRS])
    assert sorted(map(str, operator.execute(claim).fetchall())) == sorted(
        str((tenant,)) for tenant in (THEIRS, THEIRS, None)
    )
    operator.execute("select app_jobs.release_jobs('w')")
    operator.execute("select app_jobs.resume_queue('q', %s)", [THEIRS])
    limits = operator.execute(
        "select database_id::text, paused, max_running from app_jobs.list_queues() order by 1"
    ).fetchall()
    assert limits == [(OURS, True, 1), (THEIRS, False, 2), (None, False, 1)]


def test_lists_and_redrives(login: Login) -> None:
    operator = login("operator")
    ids = {tenant: add(operator, tenant, "k") for tenant in TENANTS}
    listed = operator.execute("select id from app_jobs.list_jobs(db_id => %s)", [OURS])
    assert listed.fetchall() == [(ids[OURS],)]
    operator.execute("select app_jobs.permanently_fail_jobs(%s)", [list(ids.values())])
    finished = operator.execute("select id from app_jobs.list_finished(db_id => %s)", [OURS])
    assert finished.fetchall() == [(ids[OURS],)]
    redriven = operator.execute("select id from app_jobs.redrive_jobs(db_id => %s)", [OURS])
    assert redriven.fetchall() == [(ids[OURS],)]
    assert operator.execute("select id from app_jobs.jobs").fetchall() == [(ids[OURS],)]


def test_schedules(login: Login) -> None:
    worker = login("worker")
    schedule = (
        "select id from app_jobs.add_scheduled_job("
        """%s, 't', schedule_info => '{"every": "1 h"}',"""
        " job_key => 'k', priority => %s)"
    )
    ids = [worker.execute(schedule, [tenant, 0]).fetchone() for tenant in TENANTS]
    assert len(set(ids)) == 3
    assert [worker.execute(schedule, [tenant, 1]).fetchone() for tenant in TENANTS] == ids
