"""Put the SQL files, which stand in the checkout's root, into the distributions."""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class SchemaHook(BuildHookInterface):  # type: ignore[type-arg]
    """The wheel carries the plan and its scripts as app_jobs/schema, the sdist as schema."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Name the files to include; an editable install finds them in the checkout."""
        if version == "editable":
            return
        root = Path(self.root)
        source = root / "schema" if (root / "schema").exists() else root.parent
        target = "schema" if self.target_name == "sdist" else "app_jobs/schema"
        for name in ("sqitch.plan", "deploy", "revert", "verify", "LICENSE", "VERSION"):
            build_data["force_include"][str(source / name)] = f"{target}/{name}"
