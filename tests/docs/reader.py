"""Run a page of the documentation as its reader would, block by block, and compare what is shown.

    sh      in a shell; what it exports, later blocks find in their environment
    sql     in psql, on DATABASE_URL
    python  written to a file if its first line is "# NAME.py", added to it if that is "# NAME.py,
            below"; else run in a session that lasts for the whole page
    text    what the block before has printed; in it … stands for anything, and for any number of
            lines if it is alone on one

All in one empty folder. A block may fail only if the text after it shows an error. Blocks within an
HTML comment are run like all others, unseen by readers. A comment in the line above a block says
what is to be done instead:

    <!-- terminal NAME -->   sh: in another terminal, after Ctrl-C for what runs there;
                             text: wait until that terminal has printed it
    <!-- again -->           the text after it is what the block prints sooner or later
    <!-- checkout -->        in a copy of the repository, not in the empty folder
    <!-- checkout, long -->  the same, but only with APP_JOBS_FULL, which `make test-docs` sets
    <!-- from PATH -->       nothing: this stands in a file, which tests run as a whole
    <!-- not run: WHY -->    nothing
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 20  # seconds after which what was waited for is taken to never come
FENCE = "`" * 3
BLOCK = re.compile(
    rf"(?:^<!-- (?P<mark>(?!not run: *-->).+?) -->\n+)?"
    rf"^{FENCE}(?P<language>\w*)\n(?P<code>.*?)^{FENCE}\n",
    re.MULTILINE | re.DOTALL,
)
FILE = re.compile(r"# (?P<name>\S+\.py)(?P<below>, below)?\n")
ERROR = re.compile(r"^(ERROR|error|Traceback)\b", re.MULTILINE)
# Reads blocks as lines with a literal of a string each, and ends the output of each with a NUL.
PYTHON_SESSION = """
import ast, asyncio, inspect, sys, traceback
loop = asyncio.new_event_loop()
for line in sys.stdin:
    try:
        code = compile(ast.literal_eval(line), "block", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        done = eval(code)
        if inspect.isawaitable(done):
            loop.run_until_complete(done)
    except Exception:
        traceback.print_exc(file=sys.stdout)
    print(end="\\0", flush=True)
"""


@dataclass(frozen=True)
class Block:
    """A fenced block: where it is, its language, its text and the mark above it."""

    place: str
    language: str
    code: str
    mark: str


def blocks_of(path: Path) -> list[Block]:
    """All blocks of a page."""
    text = path.read_text()
    found = []
    for match in BLOCK.finditer(text):
        line = text.count("\n", 0, match.start("language")) + 1
        place = f"{path.name}:{line}"
        found.append(Block(place, match["language"], match["code"], match["mark"] or ""))
    fences = len(re.findall(rf"^ *{FENCE}", text, re.MULTILINE))
    assert fences == 2 * len(found), f"{path.name}: a fence is indented, or not closed"
    return found


class Misprint(AssertionError):
    """The page is wrong: a block fails, or prints something else than the page says."""

    def __init__(self, block: Block, problem: str, output: str) -> None:
        super().__init__(f"{block.place}: {problem}\n\n{block.code}\nIt printed:\n\n{output}")


@dataclass
class Terminal:
    """A terminal in which something goes on running."""

    process: subprocess.Popen[bytes]
    log: Path
    seen: int = 0

    def unread(self) -> str:
        """The whole lines that have not been waited for yet."""
        text = self.log.read_text()
        return text[self.seen : text.rfind("\n") + 1]

    def interrupt(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGINT)
        code = self.process.wait(PATIENCE)
        assert code == 0, f"ended with exit code {code}:\n{self.log.read_text()}"


@dataclass
class Reader:
    """Somebody who does what a page says. checkout() returns a copy of the repository."""

    folder: Path
    environment: dict[str, str]
    checkout: Callable[[], Path]
    logs: Path
    terminals: dict[str, Terminal] = field(default_factory=dict)
    compared: bool = False
    session: subprocess.Popen[str] | None = None

    def read(self, path: Path) -> None:
        """Run all blocks of a page; raise Misprint where it is wrong."""
        blocks = blocks_of(path)
        try:
            for block, following in zip(blocks, [*blocks[1:], None], strict=True):
                expected = None
                if following and following.language == "text" and not following.mark:
                    expected = following.code
                self.follow(block, expected)
            for terminal in self.terminals.values():
                terminal.interrupt()
        finally:
            self.leave()

    def follow(self, block: Block, expected: str | None) -> None:
        """Do what a block and its mark say; the text that follows is what it must print."""
        kind, _, name = block.mark.partition(" ")
        left_out = block.mark.startswith("not run: ") or (
            block.mark == "checkout, long" and not os.environ.get("APP_JOBS_FULL")
        )
        file = FILE.match(block.code) if block.language == "python" else None
        if kind == "from":
            self.compare_with_file(block, ROOT / name)
        elif kind == "terminal" and block.language == "sh":
            self.open_terminal(name, block)
        elif kind == "terminal" and block.language == "text":
            self.watch(self.terminals[name], block)
        elif block.language == "text" and not block.mark:
            if not self.compared:
                raise Misprint(block, "nothing before it prints it, and it has no mark", "")
        elif file:
            with (self.folder / file["name"]).open("a" if file["below"] else "w") as source:
                source.write(f"\n\n{block.code[file.end() :]}")
        elif not left_out:
            self.run_and_compare(block, expected)
            self.compared = True
            return
        self.compared = False

    def run_and_compare(self, block: Block, expected: str | None) -> None:
        if block.mark not in ("", "again", "checkout", "checkout, long"):
            raise Misprint(block, f"nobody knows the mark {block.mark!r}", "")
        run = {"sh": self.shell, "sql": self.psql, "python": self.python}.get(block.language)
        if run is None:
            raise Misprint(block, "no way to run it, and no mark says why it is not run", "")
        deadline = time.monotonic() + PATIENCE
        while True:
            good, output = run(block)
            matches = expected is None or fits(expected, output)
            if matches or block.mark != "again" or time.monotonic() > deadline:
                break
            time.sleep(0.1)
        if good == bool(expected and ERROR.search(expected)):
            raise Misprint(block, "it did not fail" if good else "it failed", output)
        if not matches:
            raise Misprint(block, f"it should have printed:\n\n{expected}", output)

    def shell(self, block: Block) -> tuple[bool, str]:
        exports = self.logs / "exports"
        script = f"set -euo pipefail\n{block.code}\nenv -0 > '{exports}'"
        cwd = self.checkout() if block.mark.startswith("checkout") else self.folder
        done = self.run(["bash", "-c", script], cwd=cwd)
        if done[0]:
            pairs = exports.read_text().rstrip("\0").split("\0")
            self.environment = dict(pair.split("=", 1) for pair in pairs)
        return done

    def psql(self, block: Block) -> tuple[bool, str]:
        options = ["-X", "-v", "ON_ERROR_STOP=1", "-v", "SHOW_CONTEXT=never"]
        return self.run(["psql", *options, self.environment["DATABASE_URL"]], block.code)

    def python(self, block: Block) -> tuple[bool, str]:
        if self.session is None:
            self.session = subprocess.Popen(
                ["python", "-u", "-c", PYTHON_SESSION],
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        assert self.session.stdin and self.session.stdout
        self.session.stdin.write(f"{block.code!r}\n")
        self.session.stdin.flush()
        output = "".join(iter(lambda: self.character(block), "\0"))
        return "Traceback (most recent call last)" not in output, tidy(output)

    def character(self, block: Block) -> str:
        assert self.session and self.session.stdout
        read = self.session.stdout.read(1)
        if not read:
            raise Misprint(block, "it ended the Python session", "")
        return read

    def run(
        self, command: list[str], given: str | None = None, cwd: Path | None = None
    ) -> tuple[bool, str]:
        done = subprocess.run(
            command,
            check=False,
            cwd=cwd or self.folder,
            env=self.environment,
            input=given or "",
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
        )
        return done.returncode == 0, tidy(done.stdout)

    def open_terminal(self, name: str, block: Block) -> None:
        if name in self.terminals:
            self.terminals.pop(name).interrupt()
        log = self.logs / name
        with log.open("wb") as output:
            process = subprocess.Popen(
                ["bash", "-c", block.code.strip()],
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.terminals[name] = Terminal(process, log)

    def watch(self, terminal: Terminal, block: Block) -> None:
        """Wait until a terminal has printed what the block shows, after what was waited for."""
        pattern = re.compile(rf"^{pattern_of(block.code)}", re.MULTILINE)
        deadline = time.monotonic() + PATIENCE
        while not (match := pattern.search(terminal.unread())):
            if terminal.process.poll() is not None or time.monotonic() > deadline:
                raise Misprint(block, "the terminal does not show it", terminal.log.read_text())
            time.sleep(0.02)
        terminal.seen += match.end()

    def compare_with_file(self, block: Block, path: Path) -> None:
        """Each paragraph of the block must be in the file, however indented."""
        source = unindented(path.read_text())
        for paragraph in unindented(block.code).split("\n\n"):
            if paragraph.strip("\n") not in source:
                raise Misprint(block, f"{path.name} has no such lines", paragraph)

    def leave(self) -> None:
        """End what is still there, a page that went wrong included."""
        for terminal in self.terminals.values():
            if terminal.process.poll() is None:
                os.killpg(terminal.process.pid, signal.SIGKILL)
                terminal.process.wait()
        if self.session:
            with self.session as session:
                session.kill()


def pattern_of(expected: str) -> str:
    """The expected text as a regular expression: … is anything, alone on a line any lines."""
    lines = []
    for line in tidy(expected).splitlines():
        anything = line.strip() == "…"
        lines.append(r"(?:.*\n)*?" if anything else re.escape(line).replace("…", ".*?") + r"\n")
    return "".join(lines)


def fits(expected: str, output: str) -> bool:
    return re.fullmatch(pattern_of(expected), output) is not None


def tidy(text: str) -> str:
    """The text without spaces at the ends of lines and without empty lines at its own ends."""
    lines = "\n".join(line.rstrip() for line in text.splitlines()).strip("\n")
    return f"{lines}\n" if lines else ""


def unindented(text: str) -> str:
    return "\n".join(line.strip() for line in text.splitlines())
