"""The site builds without warnings, its links lead somewhere, it loads nothing from elsewhere."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from reader import ROOT

SITE = ROOT / "build/site"


class Page(HTMLParser):
    """What an HTML file has ids for, links to, and loads."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: set[str] = set()
        self.loaded: set[str] = set()
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = {name: value for name, value in attributes if value}
        self.ids |= {values[name] for name in ("id", "name") if name in values}
        if tag == "a" and "href" in values:
            self.links.add(values["href"])
        else:
            self.loaded |= {values[name] for name in ("href", "src") if name in values}


@pytest.fixture(scope="module")
def pages() -> dict[Path, Page]:
    built = subprocess.run(
        [sys.executable, ROOT / "tools/build_site.py"],
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert built.returncode == 0, built.stdout
    # the page for what is not found has absolute links, since it is shown anywhere
    return {path: Page(path) for path in SITE.rglob("*.html") if path.name != "404.html"}


def broken(pages: dict[Path, Page], path: Path, links: set[str]) -> Iterator[str]:
    for link in sorted(links):
        parts = urlsplit(link)
        if parts.scheme or parts.netloc:
            continue
        target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
        target = target / "index.html" if target.is_dir() else target
        if not target.is_file() or (
            parts.fragment and unquote(parts.fragment) not in pages[target].ids
        ):
            yield f"{path.relative_to(SITE)}: {link}"


def test_links_lead_somewhere(pages: dict[Path, Page]) -> None:
    assert {"index.html", "tutorial.html", "errors.html"} <= {path.name for path in pages}
    assert [line for path, page in pages.items() for line in broken(pages, path, page.links)] == []


def test_nothing_is_loaded_from_elsewhere(pages: dict[Path, Page]) -> None:
    for path, page in pages.items():
        assert not [link for link in page.loaded if urlsplit(link).netloc], path
        assert list(broken(pages, path, page.loaded)) == []
    for sheet in SITE.rglob("*.css"):
        assert "url(http" not in sheet.read_text(), sheet
