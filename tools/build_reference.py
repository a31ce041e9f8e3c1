"""Write docs/reference.md from the comments in the schema, docs/python.md from the docstrings.

    tools/build_reference.py [--check]

Reads the deploy scripts in the plan's order, not a database, so that it needs no server. --check
writes nothing and exits with 1 if a file is stale.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "python-client/src/app_jobs"
CHANGE = re.compile(r"^(\w+)[^#\n]*# (.*)$", re.MULTILINE)
COMMENT = re.compile(
    r"^comment on (function|table|view|column) app_jobs\.([^;]+?) is\s+'((?:[^']|'')*)';",
    re.MULTILINE,
)
HEAD = """# Reference

Made from the comments in `deploy/` by `make generate`; `\\df+ app_jobs.*` and `\\d+` show the same.
What is marked internal is granted to nobody and may change.
"""


PYTHON_HEAD = """# Reference: Python

Made from the docstrings by `make generate`. `AsyncClient` and `AsyncDelayedTasks` have the methods
of `Client` and `DelayedTasks`, to be awaited. All methods of the clients take `connection=`, too.
Exceptions have [a page of their own](errors.md).
"""
CONNECTION = re.compile(r"(, )?(\*, )?connection: (Async)?Connection\[Any\] \| None=None")
Function = ast.FunctionDef | ast.AsyncFunctionDef


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


def signature(name: str, function: Function) -> str:
    """How the function is called, in lines that fit the page; a property as its type."""
    result = f" -> {ast.unparse(function.returns)}" if function.returns else ""
    if any(ast.unparse(decorator) == "property" for decorator in function.decorator_list):
        return f"{name}{result.replace(' ->', ':')}"
    arguments = re.sub(r"^(self|cls)(, )?", "", CONNECTION.sub("", ast.unparse(function.args)))
    prefix = "async " if isinstance(function, ast.AsyncFunctionDef) else ""
    result = "" if name[0].isupper() else result
    whole = re.sub(r"(?<!,) ", "\0", f"{prefix}{name}({arguments}){result}")  # break after commas
    lines = textwrap.fill(whole, 100, subsequent_indent="    ", break_long_words=False)
    return lines.replace("\0", " ")


def described(lines: list[str], node: ast.ClassDef | Function) -> str:
    """A block of lines and the docstring below them."""
    docstring = ast.get_docstring(node)
    return "```text\n" + "\n".join([*lines, *(["", docstring] if docstring else [])]) + "\n```"


def attributes(made: Function) -> list[str]:
    """The attributes that a constructor sets and describes in a string below."""
    lines = []
    for assigned, text in zip(made.body, made.body[1:], strict=False):
        if isinstance(assigned, ast.Assign | ast.AnnAssign) and isinstance(text, ast.Expr):
            target = assigned.target if isinstance(assigned, ast.AnnAssign) else assigned.targets[0]
            if isinstance(target, ast.Attribute) and isinstance(text.value, ast.Constant):
                meaning = inspect.cleandoc(str(text.value.value))
                lines.append(f"{target.attr}\n{textwrap.indent(meaning, '    ')}")
    return lines


def class_section(node: ast.ClassDef) -> str:
    """Markdown of a class: how it is made, its fields, its methods."""
    methods: dict[str, list[Function]] = {}
    fields = []
    for part in node.body:
        if isinstance(part, Function):
            methods.setdefault(part.name, []).append(part)
        elif isinstance(part, ast.AnnAssign):
            fields.append(ast.unparse(part))
    constructors = methods.get("__init__", [])
    head = [signature(node.name, made) for made in constructors]
    parts = [f"## {node.name}", described(head + fields, node)]
    if described_attributes := [line for made in constructors for line in attributes(made)]:
        parts.append("```text\n" + "\n".join(described_attributes) + "\n```")
    for name, found in methods.items():
        if not name.startswith("_"):
            shown = found[:-1] or found  # overloads, without what implements them
            parts.append(f"### {node.name}.{name}")
            parts.append(described([signature(name, one) for one in shown], found[-1]))
    return "\n\n".join(parts)


def python_reference() -> str:
    """The whole page: what the package exports, in its order."""
    listed = (PACKAGE / "__init__.py").read_text().partition("__all__ = ")[2].partition("]")[0]
    exported = ast.literal_eval(listed + "]")
    classes = {
        node.name: node
        for path in sorted(PACKAGE.glob("*.py"))
        if path.name != "errors.py"
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ClassDef)
    }
    names = [name for name in exported if name in classes and not name.startswith("Async")]
    return (
        "\n\n".join([PYTHON_HEAD.strip(), *(class_section(classes[name]) for name in names)]) + "\n"
    )


def main() -> None:
    """Write the pages, or check them."""
    pages = {"docs/reference.md": reference(), "docs/python.md": python_reference()}
    if sys.argv[1:] not in ([], ["--check"]):
        sys.exit(__doc__)
    for name, page in pages.items():
        target = ROOT / name
        if not sys.argv[1:]:
            target.write_text(page)
        elif not target.exists() or target.read_text() != page:
            sys.exit(f"{name} is stale: run make generate")


if __name__ == "__main__":
    main()
