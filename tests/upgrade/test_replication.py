"""Tables replicated to a server that takes over: logical replication leaves sequences behind."""

from __future__ import annotations

import psycopg
from psycopg.conninfo import make_conninfo
from release_dump import fill
from roads import BIN_DIR, contents, migrator_deploy, works_on

from app_jobs import Client
from app_jobs.embedded import throw_away

IN_STEP = """
select not exists (select from pg_subscription_rel where srsubstate <> 'r')
from pg_sleep(0.05)
"""


def test_a_subscriber_takes_over() -> None:
    with throw_away(bin_dir=BIN_DIR, settings={"wal_level": "logical"}) as dsn:
        old, new = (make_conninfo(dsn, dbname=name) for name in ("old", "new"))
        with psycopg.connect(dsn, autocommit=True) as connection:
            for name in ("old", "new"):
                connection.execute(f"create database {name}")
        migrator_deploy(old)
        migrator_deploy(new)
        with (
            psycopg.connect(old, autocommit=True) as publisher,
            psycopg.connect(new, autocommit=True) as subscriber,
        ):
            # Without a replica identity it could neither update nor delete any more.
            publisher.execute("create publication jobs for all tables")
            publisher.execute("select pg_create_logical_replication_slot('jobs', 'pgoutput')")
            subscriber.execute("truncate app_jobs.error_codes, app_jobs.open_slots")
            subscriber.execute("truncate sqitch.releases, sqitch.projects cascade")
            subscriber.execute(
                f"create subscription jobs connection '{old}' publication jobs"
                " with (create_slot = false)"
            )
            fill(old)
            with Client(old) as client:
                client.add_jobs([{"identifier": "filler"} for _ in range(3000)])
                client.tick()
            while subscriber.execute(IN_STEP).fetchone() != (True,):
                pass
            sent = publisher.execute("select pg_current_wal_flush_lsn()").fetchone()
            confirmed = (
                "select confirmed_flush_lsn >= %s from pg_replication_slots, pg_sleep(0.05)"
                " where slot_name = 'jobs'"
            )
            while publisher.execute(confirmed, sent).fetchone() != (True,):
                pass
            before = contents(old, "app_jobs")
            subscriber.execute("alter subscription jobs disable")
            subscriber.execute("alter subscription jobs set (slot_name = none)")
            subscriber.execute("drop subscription jobs")
            left = (
                "select active from pg_replication_slots, pg_sleep(0.05) where slot_name = 'jobs'"
            )
            while publisher.execute(left).fetchone() != (False,):
                pass
            publisher.execute("select pg_drop_replication_slot('jobs')")
        after = contents(new, "app_jobs")
        with psycopg.connect(new) as connection:
            tables = connection.execute(
                "select tablename from pg_tables where schemaname = 'app_jobs'"
            ).fetchall()
        assert [name for (name,) in tables if after[name] != before[name]] == []
        with psycopg.connect(new) as connection:
            # Before anybody adds: his job would get the id of one that is finished.
            connection.execute("select app_jobs.sweep()")
        with Client(new) as client:  # ids of other tables than jobs
            client.record_action("somebody", "resume_queue")
            client.add_scheduled_job(identifier="another", schedule_info={"every": "1 day"})
        works_on(new, "app_jobs", before)
