"""docs/errors.md has an entry for every SQLSTATE and every exception that a caller can meet."""

from __future__ import annotations

import ast
import re

from reader import ROOT

PAGE = (ROOT / "docs/errors.md").read_text()
HEADINGS = "\n".join(re.findall(r"^## .*", PAGE, re.MULTILINE))
PACKAGE = ROOT / "python-client/src/app_jobs"
INTERNAL = {"DemoError", "Misfit", "Refused"}  # caught where they are raised


def test_every_sqlstate() -> None:
    raised = set()
    for script in (ROOT / "deploy").glob("*.sql"):
        for statement in re.findall(r"\braise exception[^;]*;", script.read_text()):
            raised |= set(re.findall(r"'([0-9A-Z]{5})'", statement))
    listed = re.findall(r"^\('(\w{5})'", (ROOT / "deploy/error_codes.sql").read_text(), re.M)
    described = re.findall(r"\b\d{2}\w{3}\b|\bJQ\d{3}\b", HEADINGS)
    assert raised == set(listed) == set(described)


def test_every_exception() -> None:
    classes = [
        node
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
    ]
    exceptions = {"Exception"}
    for _ in classes:  # a base may be found after its children
        exceptions |= {
            node.name for node in classes if exceptions & set(map(ast.unparse, node.bases))
        }
    public = {name for name in exceptions if not name.startswith("_")}
    described = set(re.findall(r"\b\w+\b", HEADINGS))
    for row in re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", PAGE, re.MULTILINE):
        described |= set(re.findall(r"\w+", row))
    assert public - INTERNAL - {"Exception"} <= described
