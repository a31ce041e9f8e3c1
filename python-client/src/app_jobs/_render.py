"""Another name for the schema: the same SQL files, with every `app_jobs` in them replaced.

Roles, the notification channel, lock keys, settings and comments carry the schema's name, so
installations under different names have nothing in common. This module needs the standard library
alone and can be run as a file, for Sqitch: ``python -I _render.py NAME CHECKOUT FOLDER``.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

DEFAULT = "app_jobs"
# The longest role name, NAME_producer, and the registry's must fit into 63 characters.
_NAME = re.compile(r"(?!pg_)[a-z_][a-z0-9_]{0,39}")
# Not within a longer word; but the names of roles begin with it.
_WORD = re.compile(rf"(?<![A-Za-z0-9_]){DEFAULT}(?![A-Za-z0-9])")


def check_name(schema: str) -> None:
    """Raise ValueError unless this can be the name of an installation."""
    if not _NAME.fullmatch(schema):
        raise ValueError(
            f'"{schema}" cannot be the schema\'s name: up to 40 lower-case letters, digits and'
            ' underscores, the first no digit, and not "pg_" in front'
        )


def render(text: str, schema: str) -> str:
    """The text of an SQL file or of the plan for this schema name."""
    return text if schema == DEFAULT else _WORD.sub(schema, text)


def registry(schema: str) -> str:
    """The name of the schema in which Sqitch and the migrator keep their registry."""
    return "sqitch" if schema == DEFAULT else f"{schema}_sqitch"


def render_checkout(schema: str, checkout: Path, folder: Path) -> None:
    """Make the folder a Sqitch project for this schema name.

    Another deployer may be reading it: files are replaced whole, and only if they differ.
    """
    check_name(schema)
    paths = [Path("sqitch.conf"), Path("sqitch.plan")]
    paths += [
        path.relative_to(checkout)
        for kind in ("deploy", "revert", "verify")
        for path in checkout.glob(f"{kind}/*.sql")
    ]
    for path in paths:
        text = render((checkout / path).read_text("utf-8"), schema)
        if path.suffix == ".conf":
            text += f'\n[engine "pg"]\n    registry = {registry(schema)}\n'
        target = folder / path
        if not target.exists() or target.read_text("utf-8") != text:
            target.parent.mkdir(parents=True, exist_ok=True)
            unfinished = target.with_suffix(".new")
            unfinished.write_text(text, "utf-8")
            unfinished.replace(target)
    for stale in {path.relative_to(folder) for path in folder.glob("*/*.sql")} - {*paths}:
        (folder / stale).unlink()


if __name__ == "__main__":
    try:
        render_checkout(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
    except ValueError as error:
        sys.exit(str(error))
