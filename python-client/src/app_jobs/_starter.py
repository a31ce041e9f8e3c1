"""What `app-jobs init` writes: a project to begin with."""

from __future__ import annotations

from pathlib import Path

from app_jobs.errors import BadArgument

STARTER = Path(__file__).with_name("starter")


def write_starter(folder: Path) -> list[Path]:
    """Write the files into a folder, all or none of them, and return their paths."""
    folder = folder.resolve()
    texts = {}
    for source in sorted(STARTER.rglob("*")):
        if source.is_file() and source.suffix != ".pyc":
            name = source.relative_to(STARTER)
            if name.name == "env.example":
                name = Path(".env.example")
            texts[folder / name] = source.read_text("utf-8").replace("@FOLDER@", str(folder))
    there = [str(path.relative_to(folder)) for path in texts if path.exists()]
    if there:
        raise BadArgument(
            f"{folder} has {', '.join(there)} already",
            hint="Nothing was written. Give another folder: app-jobs init DIR.",
        )
    for path, text in texts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    return list(texts)
