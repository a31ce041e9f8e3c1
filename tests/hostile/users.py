"""Who tries what: a user for each role, and one who has none."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import psycopg

ROLES = ["producer", "worker", "operator", "monitor"]
USERS = [*ROLES, "nobody"]
LONG = os.environ.get("APP_JOBS_FULL") == "1"
PATIENCE = 20  # seconds after which what was waited for is taken to never come

Login = Callable[[str], psycopg.Connection[Any]]
