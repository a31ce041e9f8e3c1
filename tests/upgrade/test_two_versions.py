"""A client of one version, the schema of another; up and down by Sqitch and as extension."""

from __future__ import annotations

from pathlib import Path

import build_sql
import psycopg
import pytest
from releases import NEXT, THIS, Release
from roads import BIN_DIR, psql, run

from app_jobs import Client, migrate
from app_jobs._plan import Plan
from app_jobs.embedded import throw_away

ADD = "import sys; from app_jobs import Client; Client(sys.argv[1]).add_job(identifier='work')"
WORK = """
import sys
from app_jobs import Tasks, Worker
tasks = Tasks()
tasks.task('work')(lambda: None)
Worker(sys.argv[1], tasks).run()
"""


@pytest.mark.parametrize("program", [ADD, WORK], ids=["client", "worker"])
def test_a_newer_client_says_what_to_do(program: str, next_release: Release, database: str) -> None:
    said = next_release.run("-c", program, database, fails=True)
    assert f"the schema is version {THIS}, older than this client, {NEXT}" in said
    assert "Upgrade the schema: app-jobs migrate." in said


def test_an_older_client_serves_on(next_release: Release, database: str) -> None:
    """Also one that called each function before; only its migrator keeps its hands off."""
    with Client(database) as client, psycopg.connect(database, autocommit=True) as connection:
        for _ in range(6):  # psycopg prepares what it sees for the sixth time
            client.add_job(identifier="work", connection=connection)
            (job,) = client.get_jobs("w", connection=connection)
        next_release.run("-m", "app_jobs.migrate", "migrate", "--dsn", database)
        assert client.version() == NEXT
        client.add_job(identifier="work", connection=connection)
        (job,) = client.get_jobs("w", connection=connection)
        assert client.complete_job("w", job.id, job.lease, connection=connection) == job
        assert len(client.release_jobs("w", connection=connection)) == 6
    with pytest.raises(migrate.SchemaTooNew) as error:
        migrate.migrate(database, log=lambda _: None)
    assert error.value.hint == "Upgrade app-jobs: the schema is newer than its SQL files."


def test_sqitch_goes_the_same_way(next_files: Path, database: str) -> None:
    run(["sqitch", "deploy", "db:pg:"], database, cwd=next_files)
    with Client(database) as client:
        assert client.version() == NEXT
    run(["sqitch", "revert", "-y", "--to-change", f"@v{THIS}", "db:pg:"], database, cwd=next_files)
    assert migrate.verify(database) == []
    assert migrate.status(database).up_to_date


def test_the_extension_goes_up_and_down(next_files: Path) -> None:
    """On PostgreSQL 18, which looks for extensions where it is told to."""
    folder = next_files / "extension"
    folder.mkdir()
    files = build_sql.build(Plan.load(next_files), NEXT)
    for name, text in files.items():
        (folder / name).write_text(text, "utf-8")
    next_files.chmod(0o755)  # the server runs as another user
    path = f"$system:{next_files}"
    with throw_away(bin_dir=BIN_DIR, settings={"extension_control_path": path}) as dsn:
        psql(dsn, f"create extension app_jobs version '{THIS}'")
        with Client(dsn) as client:
            job = client.add_job(identifier="work", job_key="k")
            psql(dsn, "alter extension app_jobs update")
            assert client.version() == NEXT
            assert client.find_job("k") == job
            psql(dsn, files["app_jobs_verify.sql"])
            psql(dsn, f"alter extension app_jobs update to '{THIS}'")
            assert client.version() == THIS
            assert client.find_job("k") == job
        assert migrate.verify(dsn) == []
