"""sqitch.plan: the list of changes, with the ids that Sqitch gives them."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from pathlib import Path

from . import _render
from .errors import AppJobsError, BadArgument


class MigrationError(AppJobsError):
    """The schema cannot be deployed, verified or reverted as asked; the hint says how to go on."""


@dataclass(frozen=True)
class Entry:
    """What changes and tags have in common: a line of the plan."""

    id: str
    name: str
    note: str
    planned_at: str
    planner_name: str
    planner_email: str


@dataclass(frozen=True)
class Change(Entry):
    """A change; script is its file name without `.sql`, requires maps names as written to ids."""

    script: str
    requires: dict[str, str]
    tags: list[Entry] = field(default_factory=list)


_ENTRY = re.compile(
    r"(?P<tag>@)?(?P<name>[^\s@\[]+)(?:\s+\[(?P<requires>[^\]]*)\])?"
    r"\s+(?P<date>\d{4}-\S+Z)\s+(?P<planner>.+?)\s+<(?P<email>[^>]+)>(?:\s+#\s*(?P<note>.*))?"
)
_ESCAPES = {r"\n": "\n", r"\r": "\r", r"\\": "\\"}
_PRAGMA = re.compile(r"%(?P<name>[\w-]+)\s*=\s*(?P<value>\S+)")
# The scripts' own, which psql and Sqitch run. Bodies of functions are indented, so what they begin
# or commit is left alone.
_TRANSACTION_LINE = re.compile(r"^(begin|commit|rollback);[ \t]*$", re.MULTILINE)


@dataclass(frozen=True)
class Plan:
    """A parsed sqitch.plan, rendered for a schema name, with the ids that Sqitch gives it."""

    folder: Path
    schema: str
    project: str
    uri: str | None
    changes: list[Change]

    @classmethod
    def load(cls, folder: Path | None = None, schema: str = _render.DEFAULT) -> Plan:
        """Read folder/sqitch.plan; without a folder, the checkout's or the one in the package."""
        try:
            _render.check_name(schema)
        except ValueError as error:
            raise BadArgument(str(error), hint="Choose another name.") from None
        folder = folder or schema_folder()
        pragmas: dict[str, str] = {}
        lines = []
        plan = _render.render((folder / "sqitch.plan").read_text("utf-8"), schema)
        for number, line in enumerate(plan.splitlines(), 1):
            if pragma := _PRAGMA.match(line):
                pragmas[pragma["name"]] = pragma["value"]
            elif line.strip() and not line.lstrip().startswith("#"):
                entry = _ENTRY.fullmatch(line.rstrip())
                if entry is None:
                    raise MigrationError(f"sqitch.plan, line {number}: cannot read {line!r}")
                lines.append(entry)
        project, uri = pragmas["project"], pragmas.get("uri")
        return cls(folder, schema, project, uri, _changes(project, uri, lines))

    @property
    def registry(self) -> str:
        """The schema of the registry in which these changes are noted."""
        return _render.registry(self.schema)

    def position(self, name: str) -> int:
        """The index of the change (the latest one of that name) or of the tag's change."""
        for index in reversed(range(len(self.changes))):
            change = self.changes[index]
            if name == change.name or name in (f"@{tag.name}" for tag in change.tags):
                return index
        raise MigrationError(
            f'there is no change or tag "{name}" in the plan',
            hint=f"The changes are: {', '.join(change.name for change in self.changes)}.",
        )

    def script(self, kind: str, change: Change) -> str:
        """The change's deploy, revert or verify script."""
        text = (self.folder / kind / f"{change.script}.sql").read_bytes().decode()
        return _render.render(text, self.schema)

    def statements(self, kind: str, change: Change) -> str:
        """The script, line for line, but without its own begin, commit or rollback."""
        return _TRANSACTION_LINE.sub("", self.script(kind, change))

    def release(self, version: str) -> list[Change]:
        """The changes of a released version, or of this one, which may have no tag yet."""
        for index, change in enumerate(self.changes):
            if any(tag.name.removeprefix("v") == version for tag in change.tags):
                return self.changes[: index + 1]
        return self.changes

    def script_hash(self, change: Change) -> str:
        """What the registry keeps of a deploy script: the SHA-1 of its bytes."""
        return hashlib.sha1(self.script("deploy", change).encode()).hexdigest()


def in_force(changes: list[Change]) -> list[Change]:
    """The changes without those that a later one reworks, whose verify scripts hold no more."""
    return list({change.name: change for change in changes}.values())


def _changes(project: str, uri: str | None, lines: list[re.Match[str]]) -> list[Change]:
    """Give every line of the plan its id: SHA-1 of its text in Sqitch's canonical form."""
    head = [f"project {project}"] + ([f"uri {uri}"] if uri else [])
    changes: list[Change] = []
    ids: dict[str, str] = {}
    for index, line in enumerate(lines):
        trailer = [f"planner {line['planner']} <{line['email']}>", f"date {line['date']}"]
        note = re.sub(r"\\[\\nr]", lambda escape: _ESCAPES[escape[0]], line["note"] or "")
        common = line["name"], note, line["date"], line["planner"], line["email"]
        if line["tag"]:
            info = [*head, f"tag @{line['name']}", f"change {changes[-1].id}", *trailer]
            changes[-1].tags.append(Entry(_id("tag", info, note), *common))
            ids |= {f"{name}@{line['name']}": ids[name] for name in ids if "@" not in name}
            continue
        names = (line["requires"] or "").split()
        if unknown := [name for name in names if name not in ids]:
            raise MigrationError(
                f'change "{line["name"]}" depends on {", ".join(unknown)},'
                " which is no earlier change of this plan"
            )
        info = [*head, f"change {line['name']}"]
        info += [f"parent {changes[-1].id}"] if changes else []
        info += trailer + (["requires", *(f"  + {name}" for name in names)] if names else [])
        requires = {name: ids[name] for name in names}
        script = _script_name(line["name"], lines[index + 1 :])
        changes.append(Change(_id("change", info, note), *common, script, requires))
        ids[line["name"]] = changes[-1].id
    return changes


def _script_name(name: str, later: list[re.Match[str]]) -> str:
    """A change that is reworked further down keeps its old scripts under name@tag."""
    if not any(line["name"] == name and not line["tag"] for line in later):
        return name
    return f"{name}@{next(line['name'] for line in later if line['tag'])}"


def _id(kind: str, info: list[str], note: str) -> str:
    text = "\n".join(info) + (f"\n\n{note}" if note else "")
    return hashlib.sha1(f"{kind} {len(text.encode())}\0{text}".encode()).hexdigest()


def schema_folder() -> Path:
    """The checkout, or the copy of its SQL files in an installed package."""
    package = Path(__file__).parent
    for folder in (package / "schema", *package.parents[2:3]):
        if (folder / "sqitch.plan").exists():
            return folder
    raise MigrationError("this installation of app-jobs lacks its SQL files: install it again")
