"""The demo's application: documents are counted, and the counts added up, by jobs.

This is what an application writes: tables, a trigger that adds a job for each new row, and a
handler for each task. ``app-jobs worker app_jobs.demo:tasks`` runs the jobs. ``python -m
app_jobs.demo`` runs the whole, on real documents and with a killed worker: see ``__main__.py``.
"""

from __future__ import annotations

import os
import re
import threading
from typing import Any

import psycopg

from app_jobs._client import Client
from app_jobs.tasks import Tasks

Connection = psycopg.Connection[Any]

# A document's id is a uuid: a job that an interrupted run left behind never meets another document.
TABLES = """
drop schema if exists app_jobs_demo cascade;
create schema app_jobs_demo;

create table app_jobs_demo.documents (
    id uuid primary key default gen_random_uuid(),
    path text not null,
    package text not null,
    content text not null
);

create table app_jobs_demo.document_stats (
    document_id uuid primary key references app_jobs_demo.documents,
    words bigint not null,
    symbols bigint not null,
    lines bigint not null,
    added_up boolean not null default false
);

create table app_jobs_demo.package_stats (
    package text primary key,
    documents bigint not null,
    words bigint not null,
    symbols bigint not null,
    lines bigint not null
);

create trigger count_document after insert on app_jobs_demo.documents
for each row execute function app_jobs.tg_add_job_with_row_id('', 'demo_count_document');

-- Completed jobs are deleted at once unless told otherwise; the report wants to look at these.
insert into app_jobs.tasks (task_identifier, keep_completed)
values ('demo_count_document', '1 day'), ('demo_add_up_package', '1 day')
on conflict (task_identifier) do update set keep_completed = excluded.keep_completed;
"""

tasks = Tasks()
client = Client()  # given a connection with each call, it opens none of its own
own = threading.local()


def connection() -> Connection:
    """The thread's own connection to the application's database, in autocommit."""
    if not hasattr(own, "connection") or own.connection.closed:
        own.connection = psycopg.connect(
            os.environ["DATABASE_URL"], autocommit=True, prepare_threshold=None
        )
    opened: Connection = own.connection
    return opened


@tasks.task("demo_count_document")
def count_document(payload: dict[str, str]) -> str:
    """Count one document, and add the job that puts its counts into the package's total.

    A job may run twice: its worker may die after the commit and before it could say "done". So the
    second run has to notice what the first one did, and leave it at that.
    """
    db = connection()
    document = db.execute(
        "select package, content from app_jobs_demo.documents where id = %(id)s", payload
    ).fetchone()
    if document is None:
        return "gone"
    package, content = document
    counts = {
        "words": len(re.findall(r"\w+", content)),
        "symbols": len(re.findall(r"[^\w\s]", content)),
        "lines": content.count("\n"),
    }
    with db.transaction():
        stored = db.execute(
            "insert into app_jobs_demo.document_stats (document_id, words, symbols, lines)"
            " values (%(id)s, %(words)s, %(symbols)s, %(lines)s)"
            " on conflict (document_id) do nothing",
            {**payload, **counts},
        )
        if stored.rowcount == 0:
            return "already done"
        # In the same transaction: the next step is there if, and only if, the counts are. It goes
        # before documents that wait to be counted.
        client.add_job(
            identifier="demo_add_up_package",
            payload=payload,
            queue_name=f"demo.{package}",
            priority=-1,
            connection=db,
        )
    return "done"


@tasks.task("demo_add_up_package")
def add_up_package(payload: dict[str, str]) -> str:
    """Add one document's counts to the total of its package, once.

    All jobs of a package are in one queue, so they run one after the other, and no handler has to
    wait for another one's lock on the total.
    """
    added = connection().execute(
        """
        with news as (
            update app_jobs_demo.document_stats as s
            set added_up = true
            from app_jobs_demo.documents as d
            where s.document_id = %(id)s and not s.added_up and d.id = s.document_id
            returning d.package, s.words, s.symbols, s.lines
        )

        insert into app_jobs_demo.package_stats as p (package, documents, words, symbols, lines)
        select n.package, 1, n.words, n.symbols, n.lines from news as n
        on conflict (package) do update set
            documents = p.documents + 1,
            words = p.words + excluded.words,
            symbols = p.symbols + excluded.symbols,
            lines = p.lines + excluded.lines
        """,
        payload,
    )
    return "done" if added.rowcount == 1 else "already done"
