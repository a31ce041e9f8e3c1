"""doctor(): what other sessions and the statistics have to do with it; the rest is in pgTAP."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg

from app_jobs import Client

SERVER = "select severity, finding, figure, remedy from app_jobs.diagnose_server('0 s')"
DEAD_ROWS = "keeps dead rows"


def found(connection: psycopg.Connection[Any], statement: str, words: str) -> list[tuple[str, ...]]:
    return [row for row in connection.execute(statement.encode()) if words in row[1]]


def test_the_session_that_pins_the_oldest_snapshot(
    database: str, connection: psycopg.Connection[Any]
) -> None:
    with psycopg.connect(database, application_name="analyst") as other:
        other.execute("set transaction isolation level repeatable read")
        other.execute("select from app_jobs.jobs")
        ((severity, _, figure, remedy),) = found(connection, SERVER, DEAD_ROWS)
        pid = other.info.backend_pid
        assert severity == "warning"
        assert figure.startswith(f"session {pid} of {other.info.user} (analyst), idle in tr")
        assert remedy == f"select pg_terminate_backend({pid})"
        assert connection.execute("select count(*) from app_jobs.doctor()").fetchone() == (1,)
    assert found(connection, SERVER, DEAD_ROWS) == []


def test_a_prepared_transaction(database: str, connection: psycopg.Connection[Any]) -> None:
    with psycopg.connect(database, autocommit=True) as other:
        other.execute("begin; create table t (); prepare transaction 'it''s'")
    gid = "'it''s'"
    try:
        ((_, _, figure, remedy),) = found(connection, SERVER, "a prepared transaction")
        assert figure.startswith(gid)
        assert remedy == f"commit prepared {gid}, or rollback prepared {gid}"
    finally:
        connection.execute(f"rollback prepared {gid}".encode())


def test_dead_rows_that_nobody_removes(
    database: str, connection: psycopg.Connection[Any], until: Callable[[str], None]
) -> None:
    with psycopg.connect(database, autocommit=True) as ending:  # then its figures are told
        ending.execute("alter table app_jobs.job_errors set (autovacuum_enabled = off)")
        ending.execute(
            "insert into app_jobs.job_errors (job_id, lease, attempt)"
            " select n, 1, 1 from generate_series(1, 60000) as n"
        )
        ending.execute("delete from app_jobs.job_errors")
    until("pg_stat_get_dead_tuples('app_jobs.job_errors'::regclass) = 60000")
    client = Client()
    findings = {f.finding: f for f in client.doctor(connection=connection)}
    assert "autovacuum leaves table job_errors out" in findings
    full = findings["table job_errors is full of dead rows"]
    assert (full.severity, full.figure) == ("warning", "60000 dead, 0 live, vacuumed never")
    connection.execute("vacuum app_jobs.job_errors")
    full_still = "finding = 'table job_errors is full of dead rows'"
    until(f"not exists (select from app_jobs.doctor() where {full_still})")
