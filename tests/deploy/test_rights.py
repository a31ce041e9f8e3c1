"""Who may deploy: CREATE on the database, and roles that somebody has made, are enough."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from roads import (
    CHANGES,
    Step,
    file_of,
    migrator_deploy,
    migrator_revert,
    product,
    psql,
    sqitch_deploy,
    sqitch_revert,
)

from app_jobs import Client, migrate

# A name of its own, since roles belong to the cluster: nobody has made these.
SCHEMA = "test_jobs"
ROLES = [f"{SCHEMA}_{name}" for name in ("monitor", "operator", "producer", "worker")]


def superuser_does(dsn: str, *statements: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def as_role(dsn: str, role: str) -> str:
    return make_conninfo(dsn, user=role)


@pytest.fixture
def deployer(own_database: str) -> Callable[[str], str]:
    """A function (attributes): connection string of a new role that may CREATE here, no more."""

    def make(attributes: str) -> str:
        with psycopg.connect(own_database) as connection:
            database = connection.info.dbname
        superuser_does(
            own_database,
            f"create role test_deployer login {attributes}",
            f"grant create on database {database} to test_deployer",
        )
        return as_role(own_database, "test_deployer")

    return make


def roles(dsn: str) -> list[str]:
    with psycopg.connect(dsn) as connection:
        rows = connection.execute(
            "select rolname from pg_roles where rolname ~ %s order by rolname", [f"^{SCHEMA}_"]
        )
        return [name for (name,) in rows]


def a_job_is_run(dsn: str) -> None:
    """By a user who has only the two roles that it takes."""
    superuser_does(dsn, f"create role test_user login in role {SCHEMA}_producer, {SCHEMA}_worker")
    with Client(as_role(dsn, "test_user"), schema=SCHEMA) as client:
        job = client.add_job(identifier="work", queue_name="line")
        claimed = client.get_job("me")
        assert claimed is not None
        assert claimed.id == job.id
        assert client.complete_job("me", job.id, claimed.lease) is not None
        client.tick()


@pytest.mark.parametrize("attributes", ["superuser", "createrole"])
def test_whoever_may_makes_the_roles(
    attributes: str, own_database: str, deployer: Callable[[str], str]
) -> None:
    dsn = deployer(attributes)
    before = product(own_database)
    migrator_deploy(dsn, schema=SCHEMA)
    assert roles(dsn) == ROLES
    a_job_is_run(own_database)
    migrator_revert(dsn, schema=SCHEMA)
    assert product(own_database) == before
    assert roles(dsn) == []


@pytest.mark.parametrize("there", [[], ROLES[:1], ROLES], ids=["none", "one", "no-membership"])
def test_who_may_not_is_told_what_to_ask_for(
    there: list[str], own_database: str, deployer: Callable[[str], str]
) -> None:
    dsn = deployer("")
    superuser_does(own_database, *(f"create role {name}" for name in there))
    with pytest.raises(migrate.MigrationError, match='role "test_deployer" may not') as refusal:
        migrator_deploy(dsn, schema=SCHEMA)
    assert refusal.value.sqlstate == "42501"
    assert migrate.status(dsn, schema=SCHEMA).deployed == ["schema"]
    advice, _, statements = str(refusal.value.hint).partition(": ")
    assert advice == "Have this run by somebody who may, then deploy again"
    superuser_does(own_database, statements)
    migrator_deploy(dsn, schema=SCHEMA)
    assert migrate.verify(dsn, schema=SCHEMA) == []
    a_job_is_run(own_database)
    migrator_revert(dsn, schema=SCHEMA)
    assert roles(dsn) == ROLES


def by_file(dsn: str) -> None:
    psql(dsn, file_of("", SCHEMA))


def by_extension(dsn: str) -> None:
    psql(dsn, f"create schema {SCHEMA}; create extension app_jobs schema {SCHEMA}")


def by_migrator(dsn: str) -> None:
    migrator_deploy(dsn, schema=SCHEMA)


@pytest.mark.parametrize("road", [by_migrator, by_file, by_extension])
def test_existing_roles_are_used(
    road: Step, own_database: str, deployer: Callable[[str], str]
) -> None:
    dsn = deployer("createrole" if road is by_migrator else "")
    superuser_does(
        own_database,
        *(f"create role {name}" for name in ROLES),
        f"grant {SCHEMA}_producer, {SCHEMA}_worker, {SCHEMA}_monitor to {SCHEMA}_operator",
    )
    road(dsn)
    assert migrate.status(dsn, schema=SCHEMA).deployed == CHANGES
    a_job_is_run(own_database)


def test_without_roles_file_and_extension_leave_nothing(
    own_database: str, deployer: Callable[[str], str]
) -> None:
    dsn = deployer("")
    before = product(own_database)
    for script in (
        file_of("", SCHEMA),
        f"begin; create schema {SCHEMA}; create extension app_jobs schema {SCHEMA}; commit;",
    ):
        said = psql(dsn, script, fails=True)
        assert 'role "test_deployer" may not make the roles of test_jobs' in said
        assert "create role test_jobs_producer nologin;" in said
    assert product(own_database) == before


@pytest.mark.parametrize(
    ("deploy", "revert"), [(sqitch_deploy, sqitch_revert), (migrator_deploy, migrator_revert)]
)
def test_a_role_that_nobody_logs_in_with_owns_it_all(
    deploy: Step, revert: Step, own_database: str, deployer: Callable[[str], str]
) -> None:
    dsn = make_conninfo(deployer(""), options="-c role=test_owner")
    with psycopg.connect(own_database) as connection:
        database = connection.info.dbname
    superuser_does(
        own_database,
        "create role test_owner nologin createrole",
        "grant test_owner to test_deployer",
        f"revoke create on database {database} from test_deployer",
        f"grant create on database {database} to test_owner",
    )
    deploy(dsn, schema=SCHEMA)
    a_job_is_run(own_database)
    with psycopg.connect(own_database) as connection:
        owners = connection.execute(
            "select distinct refobjid::regrole::text from pg_shdepend where deptype = 'o' and"
            " dbid = (select oid from pg_database where datname = current_database())"
        ).fetchall()
    assert owners == [("test_owner",)]
    revert(dsn, schema=SCHEMA)
    assert migrate.status(dsn, schema=SCHEMA).deployed == []
