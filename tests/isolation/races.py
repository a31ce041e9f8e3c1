"""Play a race, which is one of specs/, with PostgreSQL's isolationtester."""

from __future__ import annotations

import difflib
import os
import subprocess
from pathlib import Path

import psycopg

HERE = Path(__file__).parent
HELPERS = HERE / "helpers.sql"
SPECS = sorted((HERE / "specs").glob("*.spec"))
# Before each permutation of each spec.
RESET = "setup { call spec.reset(); }\n"


def isolationtester() -> Path:
    """The program, which comes with the server but not in its folder of programs."""
    version_dir = Path(os.environ["APP_JOBS_TEST_BIN"]).parent
    found = next(version_dir.rglob("isolationtester"), None)
    assert found, f"no isolationtester below {version_dir}: on Debian, postgresql-client-15 has it"
    return found


def play(database: str, spec: Path, options: str = "") -> str:
    """Run a spec in the database, with options for the server; return what differs from expected/.

    With APP_JOBS_WRITE_EXPECTED=1 what was printed is written there.
    """
    with psycopg.connect(database) as connection:
        connection.execute(HELPERS.read_bytes())
    done = subprocess.run(
        [isolationtester(), database],
        check=False,
        # A step that waits for ever is cancelled after twice so many seconds.
        env={**os.environ, "PG_TEST_TIMEOUT_DEFAULT": "30", "PGOPTIONS": options},
        input=RESET + spec.read_text(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.stdout.startswith("Parsed test spec"), done.stdout
    expected = HERE / "expected" / f"{spec.stem}.out"
    if os.environ.get("APP_JOBS_WRITE_EXPECTED"):
        expected.write_text(done.stdout)
    lines = expected.read_text().splitlines(), done.stdout.splitlines()
    return "\n".join(difflib.unified_diff(*lines, "expected", "found"))
