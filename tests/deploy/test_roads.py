"""Each road, whole: the table in docs/operations.md, a test per row and column."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from release_dump import fill
from roads import (
    CHANGES,
    HALF,
    ROADS,
    ROOT,
    Road,
    catalogue,
    contents,
    dump,
    file_of,
    migrator_deploy,
    migrator_revert,
    product,
    psql,
    registry_rows,
    sqitch,
    sqitch_deploy,
    whole_dump,
    works_on,
)

from app_jobs import Client, migrate
from app_jobs.errors import ForeignSchema


@pytest.fixture(scope="module", params=ROADS, ids=lambda road: road.name)
def road(request: pytest.FixtureRequest) -> Road:
    """One road after the other."""
    chosen: Road = request.param
    return chosen


@contextmanager
def new_database(own_server: str, name: str, template: str = "template0") -> Iterator[str]:
    with psycopg.connect(own_server, autocommit=True) as connection:
        connection.execute(f"create database {name} template {template}")
        try:
            yield make_conninfo(own_server, dbname=name)
        finally:
            connection.execute(f"drop database {name} with (force)")


@pytest.fixture(scope="module")
def installed_once(own_server: str, road: Road) -> Iterator[str]:
    with new_database(own_server, "installed") as dsn:
        road.install(dsn)
        yield dsn


@pytest.fixture
def installed(own_server: str, installed_once: str) -> Iterator[str]:
    """A database into which the road has led, for this test alone."""
    with new_database(own_server, "installed_copy", "installed") as dsn:
        yield dsn


@pytest.fixture(scope="module")
def older_once(own_server: str, sharedir: Path, road: Road) -> Iterator[str]:
    with new_database(own_server, "older") as dsn:
        road.install_older(dsn)
        yield dsn


@pytest.fixture
def older(own_server: str, older_once: str) -> Iterator[str]:
    """The same with an older version, half of the plan."""
    with new_database(own_server, "older_copy", "older") as dsn:
        yield dsn


@dataclass(frozen=True)
class Expected:
    """What the migrator leaves behind."""

    catalogue: str
    older_catalogue: str
    registry: str
    registry_rows: list[list[tuple[object, ...]]]


@pytest.fixture(scope="module")
def expected(own_server: str) -> Expected:
    with new_database(own_server, "expected") as dsn:
        migrator_deploy(dsn, to=HALF)
        older = product(dsn)
        migrator_deploy(dsn)
        return Expected(product(dsn), older, dump(dsn, "--schema=sqitch"), registry_rows(dsn))


def test_the_table_in_the_manual_has_every_road_and_column() -> None:
    lines = (ROOT / "docs" / "operations.md").read_text("utf-8").splitlines()
    head = next(index for index, line in enumerate(lines) if line.startswith("| road | install"))
    columns = [cell.strip().replace(" ", "_") for cell in lines[head].strip("|").split("|")][1:]
    rows = [line.split("|")[1].strip() for line in lines[head + 2 : head + 2 + len(ROADS)]]
    assert rows == [road.name for road in ROADS]
    tests = [name.removeprefix("test_") for name in globals() if name.startswith("test_")]
    assert [column for column in columns if column not in tests] == []


def differences(found: str, expected: str) -> list[str]:
    lines = difflib.unified_diff(expected.splitlines(), found.splitlines(), n=0)
    return [line for line in lines if line[1:].strip()][:40]


def test_install(road: Road, installed: str, expected: Expected) -> None:
    status = migrate.status(installed, schema=road.schema)
    assert status == migrate.Status(CHANGES, [], [])
    with Client(installed, schema=road.schema) as client:
        assert client.version() == (ROOT / "VERSION").read_text().strip()
    if not road.is_extension:
        assert "up-to-date" in sqitch("status", installed)
        sqitch("check", installed)
        assert differences(dump(installed, "--schema=sqitch"), expected.registry) == []
        assert registry_rows(installed) == expected.registry_rows
    assert differences(catalogue(road, installed), expected.catalogue) == []


def test_verify(road: Road, installed: str) -> None:
    before = product(installed)
    road.verify(installed)
    assert product(installed) == before
    with psycopg.connect(installed) as connection:
        connection.execute(
            f"revoke usage on schema {road.schema} from {road.schema}_worker".encode()
        )
    with pytest.raises(AssertionError, match=f"role {road.schema}_worker may not use schema"):
        road.verify(installed)


def test_upgrade(road: Road, older: str, expected: Expected) -> None:
    road.upgrade(older)
    assert migrate.status(older, schema=road.schema).up_to_date
    assert migrate.verify(older, schema=road.schema) == []
    assert differences(catalogue(road, older), expected.catalogue) == []


def test_downgrade(road: Road, installed: str, expected: Expected) -> None:
    road.downgrade(installed)
    assert differences(catalogue(road, installed), expected.older_catalogue) == []


def test_uninstall(road: Road, installed: str, own_server: str) -> None:
    with Client(installed, schema=road.schema) as client:
        client.add_job(identifier="work")
    with pytest.raises((AssertionError, migrate.MigrationError), match="1 unfinished jobs would"):
        road.uninstall(installed)
    assert migrate.status(installed, schema=road.schema).up_to_date
    options = f"-c {road.schema}.allow_data_loss=on"
    road.uninstall(make_conninfo(installed, options=options))
    with new_database(own_server, "untouched") as dsn:
        assert differences(product(installed), product(dsn)) == []
    assert migrate.status(installed, schema=road.schema).deployed == []
    road.install(installed)
    assert migrate.status(installed, schema=road.schema).up_to_date


def test_drop_extension(road: Road, installed: str) -> None:
    """It asks nothing; a schema that was given stays, and can be given again."""
    if not road.is_extension:
        with pytest.raises(AssertionError, match='extension "app_jobs" does not exist'):
            psql(installed, "drop extension app_jobs")
        return
    psql(installed, "drop extension app_jobs")
    with psycopg.connect(installed) as connection:
        left = connection.execute("select to_regnamespace(%s)::text", [road.schema]).fetchone()
    assert left == (None if road.schema == "app_jobs" else road.schema,)
    psql(installed, "create extension app_jobs" + (f" schema {road.schema}" if left[0] else ""))
    assert migrate.verify(installed, schema=road.schema) == []


def test_the_other_roads_keep_out(road: Road, installed: str) -> None:
    """None touches what another has made; each says how to go on."""
    before = product(installed)
    the_file = file_of("", road.schema)
    if road.is_extension:
        refusal = f'schema "{road.schema}" exists: extension "app_jobs" made it'
        with pytest.raises(ForeignSchema, match=refusal) as error:
            migrator_deploy(installed, schema=road.schema)
        assert error.value.hint == "ALTER EXTENSION app_jobs UPDATE brings it up to date."
        with pytest.raises(AssertionError, match=refusal):
            sqitch_deploy(installed, schema=road.schema)
        with pytest.raises(ForeignSchema, match=f'schema "{road.schema}" is that of an extension'):
            migrator_revert(installed, schema=road.schema)
        said = psql(installed, the_file, fails=True)
        assert refusal in said
        assert "HINT:  ALTER EXTENSION app_jobs UPDATE" in said
    else:
        said = psql(installed, the_file, fails=True)
        assert 'schema "app_jobs" exists and was not made by this deployment' in said
        assert "HINT:  A deployed job queue is upgraded with `app-jobs migrate`" in said
        for statement in ("create extension app_jobs", "create extension app_jobs schema app_jobs"):
            said = psql(installed, statement, fails=True)
            assert 'schema "app_jobs" exists and was not made by this extension' in said
            assert "HINT:  A deployed job queue is upgraded with `app-jobs migrate`" in said
    assert product(installed) == before
    assert migrate.status(installed, schema=road.schema).up_to_date


def test_dump_and_restore(road: Road, installed: str, own_server: str) -> None:
    with new_database(own_server, "restored") as restored:  # as it is after the installation
        psql(restored, whole_dump(installed))
        assert migrate.verify(restored, schema=road.schema) == []
        assert len(contents(restored, road.schema)["open_slots"]) == 1
    fill(installed, road.schema)
    before = contents(installed, road.schema)
    assert [name for name, rows in before.items() if not rows] == []
    with new_database(own_server, "restored") as restored:
        psql(restored, whole_dump(installed))
        after = contents(restored, road.schema)
        if road.is_extension:  # its first slot is there again, empty
            after["open_slots"] = [
                row for row in after["open_slots"] if row in before["open_slots"]
            ]
        assert after == before
        assert migrate.status(restored, schema=road.schema).up_to_date
        assert migrate.verify(restored, schema=road.schema) == []
        works_on(restored, road.schema, before)
        assert differences(catalogue(road, restored), catalogue(road, installed)) == []
