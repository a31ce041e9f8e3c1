"""Build the documentation as a static site in build/site, from docs/mkdocs.yml.

    tools/build_site.py

The pages keep their places in the repository, so that a link works there, on a forge and on the
site. Any warning is an error: a page outside the navigation, a link or an anchor that is not there.
"""

from __future__ import annotations

import logging
import re
import shutil
import sys
from pathlib import Path
from typing import Any

from mkdocs.commands.build import build
from mkdocs.config import load_config
from mkdocs.exceptions import Abort

ROOT = Path(__file__).resolve().parent.parent
PAGES = ROOT / "build/pages"
SHOWN = ["*.md", "LICENSE", "docs/**/*.md", "tests/*.md", "python-client/*.md"]
LINKED = [
    *("docs/*.css", "docs/monitoring/*", "docs/web/*.png", "sql/app_jobs_testing.sql"),
    *("python-client/examples/**/*.py", "python-client/examples/*.sql"),
]
COMMENT = re.compile(r"^<!--.*?-->\n", re.MULTILINE | re.DOTALL)


def copy_pages() -> None:
    """Copy the pages, without the comments that tell the tests how to run them."""
    shutil.rmtree(PAGES, ignore_errors=True)
    for pattern in SHOWN + LINKED:
        for path in ROOT.glob(pattern):
            target = PAGES / path.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            if pattern in SHOWN:
                target.write_text(COMMENT.sub("", path.read_text()))
            else:
                shutil.copyfile(path, target)


def present(nav: list[Any]) -> list[Any]:
    """The navigation without pages that are not written yet, and with folders spelt out."""
    found = []
    for entry in nav:
        title, target = next(iter(entry.items())) if isinstance(entry, dict) else (None, entry)
        if isinstance(target, list):
            target = present(target)
        elif (PAGES / target).is_dir():
            target = sorted(str(path.relative_to(PAGES)) for path in (PAGES / target).glob("*.md"))
        elif not (PAGES / target).exists():
            continue
        found.append({title: target} if title else target)
    return found


def main() -> None:
    """Build the site."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    copy_pages()
    config = load_config(str(ROOT / "docs/mkdocs.yml"), strict=True)
    assert config.nav is not None
    config.nav = present(config.nav)
    try:
        build(config)
    except Abort as abort:
        sys.exit(str(abort))


if __name__ == "__main__":
    main()
