"""What docs/coming-from shows runs, and what it names is there."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from applications import ROOT
from typer.main import get_command

from app_jobs import Client, JobContext, Tasks, cli

GUIDES = sorted((ROOT / "docs/coming-from").glob("*.md"))
guides = pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.stem)


def blocks(guide: Path, language: str) -> list[str]:
    text = re.sub(r"(?m)^ {3}", "", guide.read_text())
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


@guides
def test_code_runs(guide: Path, database: str) -> None:
    with Client(database) as client:
        names: dict[str, Any] = {
            "Any": Any,
            "JobContext": JobContext,
            "client": client,
            "dataclass": dataclass,
            "tasks": Tasks(),
            "__name__": __name__,
        }
        for code in blocks(guide, "python"):
            exec(code, names)
    with psycopg.connect(database) as connection:
        for statement in blocks(guide, "sql"):
            connection.execute(statement.encode())


@guides
def test_commands_can_be_read(guide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("crontab").touch()
    group: Any = get_command(cli.app)
    for line in "".join(blocks(guide, "sh")).splitlines():
        program, name, *arguments = shlex.split(line)
        command = group.commands[name]
        with command.make_context(name, arguments):
            assert program == "app-jobs"


@guides
def test_links_lead_somewhere(guide: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#]+)(?:#([^)]+))?\)", guide.read_text()):
        text = (guide.parent / target).read_text()
        headings = re.findall(r"(?m)^#+ (.+)$", text)
        assert not anchor or anchor in {heading.lower().replace(" ", "-") for heading in headings}
