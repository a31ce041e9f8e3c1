"""Break the product in one place, deploy it, and look whether the tests that are named notice.

Each mutant meets each test in a fresh database, deployed with that one text replaced. Tests
must first have passed on a deployment that is not broken. With APP_JOBS_FULL=1 each mutant meets
all that are to catch it; otherwise one mutant of each promise meets the first of them, if that is
one of SQL alone. Several at a time: most of them wait for something.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import psycopg
import pytest
import races
from mutations import MUTANTS, Mutant
from psycopg.conninfo import conninfo_to_dict

from app_jobs._plan import Plan

ROOT = Path(__file__).resolve().parents[2]
TESTS = ROOT / "tests"
PACKAGE = ROOT / "python-client/src"
PAGE = ROOT / "docs/reliability.md"
TABLE = re.compile(r"(?<=<!-- mutants -->\n).*?(?=<!-- end of mutants -->)", re.DOTALL)
FULL = os.environ.get("APP_JOBS_FULL") == "1"
AT_ONCE = 4
# Where nobody is to wait, whoever does gets an error, so that a broken race ends.
IMPATIENT = "-c lock_timeout=1s -c statement_timeout=2s"
# And nothing that a mutant does takes for ever.
PATIENT = "-c statement_timeout=60s"
FUNCTION = re.compile(r"^create (function .*?^\$\$;)$", re.DOTALL | re.MULTILINE)

SHORT = {
    mutant.promise: mutant
    for mutant in reversed(MUTANTS)
    if mutant.caught_by[0].endswith((".spec", ".sql"))
}

CopyOf = Callable[[str], AbstractContextManager[str]]


def catchers(mutant: Mutant) -> Sequence[str]:
    """The tests that it meets."""
    if FULL:
        return mutant.caught_by
    return mutant.caught_by[:1] if SHORT.get(mutant.promise) is mutant else []


def broken(mutant: Mutant, text: str) -> str:
    """The text of its file, with the replacement."""
    old = re.compile(r"\s+".join(map(re.escape, mutant.old.split())))
    text, times = old.subn(lambda _: mutant.new, text)
    assert times == 1, f"{mutant.file} says {times} times {mutant.old!r}: break something else"
    return text


def name_of(database: str) -> str:
    return str(conninfo_to_dict(database)["dbname"])


@contextmanager
def deployed(
    copy_of: CopyOf, mutant: Mutant | None = None, like: str | None = None
) -> Iterator[str]:
    """A database in which the product is deployed, with a mutant or without.

    If nothing but bodies of functions differ from `like`, it is copied, and they are replaced.
    """
    plan = Plan.load(ROOT)
    scripts = {
        f"deploy/{each.script}.sql": plan.statements("deploy", each) for each in plan.changes
    }
    before = scripts.copy()
    if mutant is not None and mutant.file in scripts:
        scripts[mutant.file] = broken(mutant, scripts[mutant.file])
    if like is not None and all(
        FUNCTION.sub("", before[file]) == FUNCTION.sub("", text) for file, text in scripts.items()
    ):
        template = name_of(like)
        statements = [
            f"create or replace {function}"
            for file, text in scripts.items()
            for function in set(FUNCTION.findall(text)) - set(FUNCTION.findall(before[file]))
        ]
    else:
        template = "template0"
        statements = ["create extension pgtap", *scripts.values()]
    with copy_of(template) as database:
        with psycopg.connect(database) as connection:
            for statement in statements:
                connection.execute(statement.encode())
        yield database


def fails(test: str, mutant: Mutant | None, like: str, copy_of: CopyOf) -> bool:
    """Whether a test does that with a mutant; None: with the product as it is."""
    with ExitStack() as stack:
        database = stack.enter_context(deployed(copy_of, mutant, like))
        if test.endswith(".spec"):
            spec = TESTS / "isolation/specs" / test
            return bool(races.play(database, spec, IMPATIENT if mutant else ""))
        if test.endswith(".sql"):
            variables = {"PGDATABASE": name_of(database)}
            done = run(["pg_prove", "--quiet", str(TESTS / "pgtap" / test)], variables)
            assert done.returncode == 0 or "Result: FAIL" in done.stdout, done.stdout
            return done.returncode != 0
        variables = {"APP_JOBS_TEST_TEMPLATE": name_of(database)}
        if mutant is not None and mutant.file.endswith(".py"):
            folder = Path(stack.enter_context(TemporaryDirectory(prefix="app-jobs-")), "src")
            shutil.copytree(PACKAGE, folder, ignore=shutil.ignore_patterns("__pycache__"))
            file = folder / (ROOT / mutant.file).relative_to(PACKAGE)
            file.write_text(broken(mutant, file.read_text()))
            variables["PYTHONPATH"] = str(folder)
        done = run([sys.executable, "-m", "pytest", "--quiet", str(TESTS / test)], variables)
        assert done.returncode == 0 or " failed" in done.stdout, done.stdout
        return done.returncode != 0


def run(command: list[str], variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        check=False,
        cwd=ROOT,
        env={**os.environ, "PGOPTIONS": PATIENT, **variables},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )


@pytest.fixture(scope="session")
def trials(
    request: pytest.FixtureRequest, copy_of: CopyOf
) -> Iterator[dict[tuple[str, str], Future[bool]]]:
    """What becomes of the mutants that are asked for, once all tests have passed without them."""
    pairs = [
        (item.callspec.params["mutant"], test)
        for item in request.session.items
        if isinstance(item, pytest.Function) and "mutant" in item.fixturenames
        for test in catchers(item.callspec.params["mutant"])
    ]
    tests = list(dict.fromkeys(test for _, test in pairs))
    if not FULL:
        tests = tests[:AT_ONCE]  # the others have just passed in suites of their own
    with deployed(copy_of) as sound, ThreadPoolExecutor(AT_ONCE) as pool:

        def tried(test: str, mutant: Mutant | None) -> bool:
            return fails(test, mutant, sound, copy_of)

        failed = pool.map(tried, tests, [None] * len(tests))
        wrong = [test for test, fails in zip(tests, failed, strict=True) if fails]
        if wrong:
            pytest.fail(f"these fail without any mutant: {wrong}", pytrace=False)
        yield {(mutant.name, test): pool.submit(tried, test, mutant) for mutant, test in pairs}
        pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize(
    "mutant",
    [mutant for mutant in MUTANTS if catchers(mutant)],
    ids=lambda mutant: re.sub(r"\W+", "-", cast("Mutant", mutant).name),
)
def test_mutant_is_caught(trials: dict[tuple[str, str], Future[bool]], mutant: Mutant) -> None:
    blind = [test for test in catchers(mutant) if not trials[mutant.name, test].result()]
    if blind:
        pytest.fail(f"with {mutant.name!r} these pass all the same: {blind}", pytrace=False)


def test_every_mutant_can_be_made() -> None:
    for mutant in MUTANTS:
        broken(mutant, (ROOT / mutant.file).read_text())
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)


def test_every_race_is_lost_by_a_mutant() -> None:
    caught = {test for mutant in MUTANTS for test in mutant.caught_by}
    assert [spec.name for spec in races.SPECS if spec.name not in caught] == []


def test_the_table_of_mutants_is_fresh() -> None:
    """With APP_JOBS_WRITE_EXPECTED=1 it is written."""
    rows = ["| broken so that | the promise | caught by |\n|---|---|---|\n"]
    for mutant in MUTANTS:
        tests = ", ".join(f"`{test}`" for test in mutant.caught_by)
        rows.append(f"| {mutant.name} | {mutant.promise} | {tests} |\n")
    page = TABLE.sub(lambda _: "".join(rows), PAGE.read_text())
    if os.environ.get("APP_JOBS_WRITE_EXPECTED"):
        PAGE.write_text(page)
    assert PAGE.read_text() == page
