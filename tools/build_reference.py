"""Write docs/reference.md from the comments in the schema: tables, views and functions.

    tools/build_reference.py [--check]

Reads the deploy scripts in the plan's order, not a database, so that it needs no server. --check
writes nothing and exits with 1 if the file is stale.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "docs" / "reference.md"
CHANGE = re.compile(r"^(\w+)[^#\n]*# (.*)$", re.MULTILINE)
COMMENT = re.compile(
    r"^comment on (function|table|view|column) app_jobs\.([^;]+?) is\s+'((?:[^']|'')*)';",
    re.MULTILINE,
)
HEAD = """# Reference

Made from the comments in `deploy/` by `make generate`; `\\df+ app_jobs.*` and `\\d+` show the same.
What is marked internal is granted to nobody and may change.
"""


def scripts() -> list[tuple[str, str, str]]:
    """Name, note and deploy script of each change, in the plan's order."""
    plan = (ROOT / "sqitch.plan").read_text()
    return [
        (name, note, (ROOT / "deploy" / f"{name}.sql").read_text())
        for name, note in CHANGE.findall(plan)
    ]


def sections(script: str) -> list[str]:
    """Markdown of the objects that a script comments: public functions and tables first."""
    public: list[str] = []
    internal: list[str] = []
    columns: list[str] = []
    for kind, object_name, quoted in COMMENT.findall(script):
        name, text = " ".join(object_name.split()), quoted.replace("''", "'")
        if kind == "column":
            cell = " ".join(text.split()).replace("|", "\\|")
            columns.append(f"| `{name.split('.')[1]}` | {cell} |")
        elif kind == "function" and "internal" in text.rsplit("Roles:", 1)[-1]:
            internal.append(f"* `{name}`: {text.split(chr(10) + chr(10))[0]}")
        elif kind == "function":
            public.append(f"### {name}\n\n```text\n{text}\n```")
        else:
            public.append(f"### {kind} {name}\n\n{text}")
    if columns:
        public.append("\n".join(["| column | |", "|---|---|", *columns]))
    if internal:
        public.append("Internal:\n\n" + "\n".join(" ".join(line.split()) for line in internal))
    return public


def reference() -> str:
    """The whole page."""
    parts = [HEAD]
    for name, note, script in scripts():
        found = sections(script)
        if found:
            parts.append(f"## {name}\n\n{note}\n\n" + "\n\n".join(found) + "\n")
    return "\n".join(parts)


def main() -> None:
    """Write the page, or check it."""
    page = reference()
    if sys.argv[1:] == ["--check"]:
        if not TARGET.exists() or TARGET.read_text() != page:
            sys.exit("docs/reference.md is stale: run make generate")
    elif not sys.argv[1:]:
        TARGET.parent.mkdir(exist_ok=True)
        TARGET.write_text(page)
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
