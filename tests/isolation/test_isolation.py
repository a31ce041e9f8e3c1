"""Run each spec with PostgreSQL's isolationtester, as it is and with its promise broken.

The comment on top of a spec says the race and the promise, and in lines like

    # breaks: look: "for update skip locked" -> "for update"

what the promise hangs on: put into the schema's function of that name, it must make the spec fail.
With APP_JOBS_WRITE_EXPECTED=1 the outputs are written instead of compared.
"""

from __future__ import annotations

import difflib
import os
import re
import subprocess
from pathlib import Path
from typing import cast

import psycopg
import pytest

HERE = Path(__file__).parent
SPECS = sorted((HERE / "specs").glob("*.spec"))
BREAK = re.compile(r'^# breaks: (\w+): "(.+)"(?: |\n# +)-> "(.*)"$', re.MULTILINE)
BREAKS = [
    pytest.param(spec, *match.groups(), id=f"{spec.stem}-{number}")
    for spec in SPECS
    for number, match in enumerate(BREAK.finditer(spec.read_text()), 1)
]
# Before each permutation of each spec.
RESET = "setup { call spec.reset(); }\n"


@pytest.fixture(scope="session")
def isolationtester() -> Path:
    """The program, which comes with the server but not in its folder of programs."""
    version_dir = Path(os.environ["APP_JOBS_TEST_BIN"]).parent
    found = next(version_dir.rglob("isolationtester"), None)
    assert found, f"no isolationtester below {version_dir}: on Debian, postgresql-client-15 has it"
    return found


def expected(spec: Path) -> Path:
    return HERE / "expected" / f"{spec.stem}.out"


def prepare(database: str) -> None:
    with psycopg.connect(database) as connection:
        connection.execute((HERE / "helpers.sql").read_bytes())


def run(isolationtester: Path, database: str, spec: Path, options: str = "") -> str:
    """Run a spec in the database, with options for the server; return what was printed."""
    done = subprocess.run(
        [isolationtester, database],
        check=False,
        # A step that waits for ever is cancelled after twice so many seconds.
        env={**os.environ, "PG_TEST_TIMEOUT_DEFAULT": "30", "PGOPTIONS": options},
        input=RESET + spec.read_text(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.stdout.startswith("Parsed test spec"), done.stdout
    return done.stdout


def break_function(database: str, function: str, old: str, new: str) -> None:
    """Replace a text in the definition of a function of the schema, however its lines break."""
    old_words = re.compile(r"\s+".join(map(re.escape, old.split())))
    with psycopg.connect(database) as connection:
        definitions = connection.execute(
            "select pg_get_functiondef(oid) from pg_proc"
            " where pronamespace = 'app_jobs'::regnamespace and proname = %s",
            [function],
        ).fetchall()
        affected = [definition for (definition,) in definitions if old_words.search(definition)]
        assert affected, f"{function}() does not say {old!r} any more: break something else"
        for definition in affected:
            connection.execute(old_words.sub(lambda _: new, definition).encode())


def test_every_spec_says_what_breaks_it() -> None:
    assert [spec.name for spec in SPECS if not BREAK.search(spec.read_text())] == []


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: cast("Path", spec).stem)
def test_race(isolationtester: Path, database: str, spec: Path) -> None:
    prepare(database)
    found = run(isolationtester, database, spec)
    if os.environ.get("APP_JOBS_WRITE_EXPECTED"):
        expected(spec).write_text(found)
    wanted = expected(spec).read_text()
    if found != wanted:
        diff = difflib.unified_diff(wanted.splitlines(), found.splitlines(), "expected", "found")
        pytest.fail("\n".join(diff), pytrace=False)


@pytest.mark.parametrize(("spec", "function", "old", "new"), BREAKS)
def test_race_is_lost_without(
    isolationtester: Path, database: str, spec: Path, function: str, old: str, new: str
) -> None:
    prepare(database)
    break_function(database, function, old, new)
    # Where nobody is to wait for long, whoever does gets an error, so that this ends.
    options = "-c lock_timeout=1s -c statement_timeout=2s"
    if run(isolationtester, database, spec, options) == expected(spec).read_text():
        pytest.fail("the spec passes all the same", pytrace=False)
