"""Each race ends as it is expected to. tests/mutants looks whether it would be noticed if not."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest
import races


@pytest.mark.parametrize("spec", races.SPECS, ids=lambda spec: cast("Path", spec).stem)
def test_race(database: str, spec: Path) -> None:
    difference = races.play(database, spec)
    if difference:
        pytest.fail(difference, pytrace=False)
