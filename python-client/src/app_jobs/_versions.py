"""What `app-jobs --version` tells."""

from __future__ import annotations

import os
from importlib import metadata

import psycopg

from app_jobs import _sql
from app_jobs._client import Client
from app_jobs.errors import AppJobsError


def versions() -> dict[str, str]:
    """Return the versions of the client, and of schema and server as far as they can be reached."""
    found = {"client": metadata.version("app-jobs"), "schema": "unknown", "server": "unknown"}
    dsn = os.environ.get("DATABASE_URL", "")
    try:
        with psycopg.connect(_sql.conninfo(dsn), autocommit=True) as connection:
            found["server"] = f"PostgreSQL {connection.info.parameter_status('server_version')}"
            found["schema"] = Client(dsn).version(connection=connection)
    except psycopg.OperationalError as error:
        found["server"] = f"not reachable: {' '.join(str(error).split())}"
    except AppJobsError as error:
        found["schema"] = error.message
    return found
