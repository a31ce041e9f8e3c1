"""The distributions in a clean environment: what is in them, and the project that init writes."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
VERSION = (ROOT / "VERSION").read_text().strip()
SCHEMA = ["sqitch.plan", "LICENSE", "VERSION"] + [
    f"{kind}/{script.name}"
    for kind in ("deploy", "revert", "verify")
    for script in (ROOT / kind).glob("*.sql")
]
STARTER = {
    ".env.example",
    "Dockerfile",
    "app-jobs-worker.service",
    "compose.yaml",
    "migrations/001_welcome.sql",
    "requirements.txt",
    "tasks.py",
}

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel made from an sdist made from the checkout."""
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder)]
    subprocess.run([*build, str(ROOT / "python-client")], check=True, capture_output=True)
    return folder / f"app_jobs-{VERSION}-py3-none-any.whl"


@pytest.fixture(scope="session")
def run(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A function (program, argument…): run it in an environment that has the wheel and psycopg."""
    home = tmp_path_factory.mktemp("clean")
    venv.create(home / "venv", with_pip=True)
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PG", "PYTHON", "DATABASE_URL"))
    }

    def run(program: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [home / "venv/bin" / program, *arguments],
            cwd=variables.pop("cwd", str(home)),
            env={**environment, **variables},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    quiet = ("install", "--quiet", "--disable-pip-version-check")
    installed = run("pip", *quiet, str(wheel), "psycopg[binary]")
    assert installed.returncode == 0, installed.stderr
    return run


def test_wheel_and_sdist_have_the_schema_and_the_starter(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        inside = set(archive.namelist())
    assert {f"app_jobs/schema/{name}" for name in SCHEMA} <= inside
    assert "app_jobs/py.typed" in inside
    assert not [name for name in inside if name.endswith(".pyc")]
    written = {name.removeprefix("app_jobs/starter/") for name in inside if "/starter/" in name}
    assert written == STARTER - {".env.example"} | {"env.example"}
    with tarfile.open(wheel.with_name(f"app_jobs-{VERSION}.tar.gz")) as archive_of_source:
        inside = set(archive_of_source.getnames())
    assert {f"app_jobs-{VERSION}/schema/{name}" for name in SCHEMA} <= inside


def test_the_core_needs_psycopg_alone(run: Run, empty_database: str) -> None:
    listed = json.loads(run("pip", "list", "--format", "json").stdout)
    names = {package["name"].replace("_", "-") for package in listed}
    assert names - {"pip", "setuptools"} == {
        *("app-jobs", "psycopg", "psycopg-binary", "typing-extensions")
    }
    code = f"""if True:
        import sys, app_jobs
        print(*sorted(m for m in sys.modules if m.startswith(("app_jobs.", "psycopg"))))
        from app_jobs import Client
        print(*sorted(m for m in sys.modules if m.startswith("app_jobs.")))
        from app_jobs import DelayedTasks, Worker, migrate
        migrate.migrate({empty_database!r}, log=lambda _: None)
        with Client({empty_database!r}) as client:
            print(client.version(), client.add_job(identifier="t").attempts)
        """
    done = run("python", "-c", code)
    assert done.stderr == ""
    at_first, by_producer, said = done.stdout.splitlines()
    assert said == f"{VERSION} 0"
    # What is not needed is not imported: it takes milliseconds.
    assert at_first == ""
    assert by_producer.split() == [
        *("app_jobs._client", "app_jobs._sql", "app_jobs._tracing", "app_jobs.errors"),
    ]
    without = run("app-jobs", "--version")
    assert without.returncode == 2
    assert "needs the extra cli" in without.stderr
    assert "pip install 'app-jobs[cli]'" in without.stderr


@pytest.fixture(scope="session")
def command(run: Run, wheel: Path) -> Run:
    """The same with the extra cli."""
    quiet = ("install", "--quiet", "--disable-pip-version-check")
    installed = run("pip", *quiet, f"{wheel}[cli]")
    assert installed.returncode == 0, installed.stderr
    return run


def test_a_worker_imports_only_what_it_needs(command: Run) -> None:
    told = command("python", "-X", "importtime", "-m", "app_jobs", "worker", "nowhere:tasks").stderr
    imported = {line.rpartition("|")[2].strip() for line in told.splitlines()}
    assert {"app_jobs.worker", "psycopg", "typer"} <= imported
    assert not imported & {"pydantic", "rich.table", "app_jobs.migrate"}


def test_version_tells_client_schema_and_server(
    command: Run, database: str, empty_database: str
) -> None:
    with psycopg.connect(database) as connection:
        server = connection.info.parameter_status("server_version")
    told = command("app-jobs", "--version", DATABASE_URL=database).stdout
    assert told.split("\n")[:3] == [
        f"client {VERSION}",
        f"schema {VERSION}",
        f"server PostgreSQL {server}",
    ]
    told = command("app-jobs", "--version", DATABASE_URL=empty_database).stdout
    assert f"server PostgreSQL {server}" in told
    assert re.search("schema .*app_jobs", told)
    missing = command("app-jobs", "--version", DATABASE_URL="host=/nowhere")
    assert missing.returncode == 0
    assert f"client {VERSION}\nschema unknown\nserver not reachable" in missing.stdout


def pythons() -> dict[str, Path]:
    """The supported versions of Python that are at hand, and where they are."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    found = {}
    for version in (f"3.{minor}" for minor in range(10, 30)):
        in_path = shutil.which(f"python{version}")
        for place in (in_path, *pyenv.glob(f"versions/{version}.*/bin/python")):
            # what stands in the path may be a shim that runs nothing, or lack what makes venvs
            if (
                place
                and subprocess.run(
                    [place, "-c", "import ensurepip, venv"], check=False, capture_output=True
                ).returncode
                == 0
            ):
                found[version] = Path(place)
    return found


TASKS_OF_ALL_KINDS = """
from app_jobs import BatchContext, Fail, JobContext, Tasks

tasks = Tasks()


@tasks.task("async")
async def in_the_loop(payload: int, ctx: JobContext) -> None:
    if ctx.attempt == 1 and payload % 10 == 0:
        raise ValueError("once")


@tasks.task("sync")
def in_a_thread(payload: int) -> None:
    if payload == 7:
        raise Fail("for good", permanent=True)


@tasks.task("process", process=True)
def in_a_process(payload: int) -> None: ...


@tasks.batch_task("batch", size=10)
async def together(payloads: list[int], batch: BatchContext) -> None: ...
"""


@pytest.mark.parametrize("version", pythons())
def test_each_python_at_hand_runs_handlers_of_all_kinds(
    version: str, wheel: Path, empty_database: str, tmp_path: Path
) -> None:
    (tmp_path / "tasks.py").write_text(TASKS_OF_ALL_KINDS)
    (tmp_path / "add.py").write_text(
        """if True:
        import os
        from app_jobs import Client
        with Client(os.environ["DATABASE_URL"]) as client:
            for name in ("async", "sync", "process", "batch"):
                client.add_jobs(identifier=name, payloads=range(100))
        """
    )
    python = tmp_path / "venv/bin/python"
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("PG", "PYTHON"))
    }
    environment["DATABASE_URL"] = empty_database

    def run(*command: str | Path) -> None:
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr

    run(pythons()[version], "-m", "venv", tmp_path / "venv")
    run(python, "-m", "pip", "install", "--quiet", f"{wheel}[cli]", "psycopg[binary]")
    run(python, "-m", "app_jobs", "migrate")
    run(python, "add.py")
    with (
        psycopg.connect(empty_database, autocommit=True) as connection,
        subprocess.Popen(
            [python, "-m", "app_jobs", "worker", "tasks:tasks"],
            cwd=tmp_path,
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        ) as worker,
    ):
        look = "select exists (select from app_jobs.jobs) from pg_sleep(0.01)"
        for _ in range(6000):
            if connection.execute(look).fetchone() == (False,) or worker.poll() is not None:
                break
        worker.terminate()
        _, log = worker.communicate(timeout=60)
        counted = connection.execute(
            """
            select
                s.task_identifier,
                sum(s.completed)::integer, sum(s.failed)::integer, sum(s.retried)::integer
            from app_jobs.task_stats(now() - interval '1 hour', now() + interval '1 minute') as s
            group by s.task_identifier order by s.task_identifier collate "C"
            """
        ).fetchall()
    assert worker.returncode == 0, log
    assert counted == [
        ("async", 100, 0, 10),
        ("batch", 100, 0, 0),
        ("process", 100, 0, 0),
        ("sync", 99, 1, 0),
    ]


@pytest.fixture
def project(command: Run, tmp_path: Path) -> Path:
    folder = tmp_path / "new" / "project"
    done = command("app-jobs", "init", str(folder))
    assert done.returncode == 0, done.stderr
    written = {path.relative_to(folder) for path in map(Path, done.stdout.split())}
    assert {str(path) for path in written} == STARTER
    assert all((folder / path).is_file() for path in written)
    return folder


def test_the_project_that_init_writes_runs(
    command: Run, project: Path, empty_database: str
) -> None:
    here = {"cwd": str(project), "DATABASE_URL": empty_database}
    migrated = command("app-jobs", "migrate", **here)
    assert migrated.returncode == 0, migrated.stderr
    psql = Path(os.environ["APP_JOBS_TEST_BIN"], "psql")
    migration = project / "migrations/001_welcome.sql"
    subprocess.run(
        [psql, "-qX", "-v", "ON_ERROR_STOP=1", "-d", empty_database, "-f", migration], check=True
    )
    prefix = command("python", "-c", "import sys; print(sys.prefix)").stdout.strip()
    with (
        psycopg.connect(empty_database, autocommit=True) as connection,
        subprocess.Popen(
            [f"{prefix}/bin/app-jobs", "worker", "tasks:tasks"],
            cwd=project,
            env={**os.environ, "DATABASE_URL": empty_database},
            stderr=subprocess.PIPE,
            text=True,
        ) as worker,
    ):
        connection.execute("insert into users (email) values ('you@example.org')")
        look = "select exists (select from app_jobs.jobs) from pg_sleep(0.01)"
        for _ in range(2000):
            if connection.execute(look).fetchone() == (False,):
                break
        worker.terminate()
        _, log = worker.communicate(timeout=60)
    assert worker.returncode == 0, log
    assert "welcome, user 1" in log


def test_init_overwrites_nothing(command: Run, project: Path) -> None:
    (project / "Dockerfile").unlink()
    (project / "tasks.py").write_text("mine")
    done = command("app-jobs", "init", cwd=str(project))
    assert done.returncode == 2
    assert "tasks.py already" in done.stderr
    assert (project / "tasks.py").read_text() == "mine"
    assert not (project / "Dockerfile").exists()


def test_the_unit_is_one_that_systemd_takes(project: Path, command: Run, tmp_path: Path) -> None:
    unit = project / "app-jobs-worker.service"
    text = unit.read_text()
    (start,) = re.findall(r"^ExecStart=(\S+) (.*)$", text, re.MULTILINE)
    assert start == (f"{project}/.venv/bin/app-jobs", "worker tasks:tasks")
    assert f"\nWorkingDirectory={project}\n" in text
    analyze = shutil.which("systemd-analyze")
    if analyze is not None:
        program = Path(start[0])
        program.parent.mkdir(parents=True)
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
        checked = subprocess.run(
            [analyze, "verify", unit], capture_output=True, text=True, check=False
        )
        about_it = [line for line in checked.stderr.splitlines() if unit.name in line]
        assert about_it == []


def test_compose_and_dockerfile_fit_each_other(project: Path) -> None:
    compose = yaml.safe_load((project / "compose.yaml").read_text())
    services = compose["services"]
    assert set(services) == {"db", "migrate", "worker"}
    for service in services.values():
        assert ("image" in service) != (service.get("build") == ".")
        assert set(service.get("depends_on", ())) <= set(services)
    assert services["worker"]["environment"]["DATABASE_URL"].endswith("@db/app")
    assert services["db"]["environment"]["POSTGRES_DB"] == "app"
    wanted = set(re.findall(r"\$\{(\w+)\}", (project / "compose.yaml").read_text()))
    example = dict(
        line.split("=", 1)
        for line in (project / ".env.example").read_text().splitlines()
        if line and line[0] != "#"
    )
    assert wanted <= set(example)
    assert example["DATABASE_URL"]

    dockerfile = (project / "Dockerfile").read_text()
    docker = dict(line.split(" ", 1) for line in dockerfile.splitlines())
    assert json.loads(docker["ENTRYPOINT"]) == ["app-jobs"]
    command = json.loads(docker["CMD"])
    assert services["worker"]["command"].split() == command == ["worker", "tasks:tasks"]
    copied = re.findall(r"^COPY (\S+) ", dockerfile, re.MULTILINE)
    assert copied == ["requirements.txt", "tasks.py"]
    assert (project / "requirements.txt").read_text().split() == [
        "app-jobs[cli]",
        "psycopg[binary]",
    ]


def test_pgxn_gets_what_is_there() -> None:
    meta = json.loads((ROOT / "META.json").read_text())
    assert meta["meta-spec"]["version"] == "1.0.0"
    assert {"name", "abstract", "maintainer", "license", "version", "provides"} <= set(meta)
    (extension,) = meta["provides"].values()
    assert meta["version"] == extension["version"] == VERSION
    assert (ROOT / extension["file"]).is_file()
    assert (ROOT / extension["docfile"]).is_file()
    control = (ROOT / "sql/app_jobs.control").read_text()
    assert f"default_version = '{VERSION}'" in control
