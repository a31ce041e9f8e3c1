"""Jobs in Django's transactions, its `migrate`, and a backend for its tasks.

`"app_jobs.django"` in INSTALLED_APPS: `manage.py migrate` deploys the schema first, in test
databases, too, and `manage.py app_jobs_worker` runs jobs. ::

    with transaction.atomic():
        user.save()
        send_email.enqueue(DjangoClient(), Email(to=user.email))

The settings APP_JOBS_DATABASE ("default") and APP_JOBS_SCHEMA ("app_jobs") say where jobs are.
backend.AppJobsBackend is for `TASKS`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, TypeVar

from django.conf import settings
from django.db import Error, connections
from psycopg import pq
from psycopg.conninfo import make_conninfo

from app_jobs._client import Client
from app_jobs._sql import Function
from app_jobs.errors import translate

T = TypeVar("T")


def database() -> str:
    """Return the alias of the database in which jobs are."""
    return str(getattr(settings, "APP_JOBS_DATABASE", "default"))


def schema() -> str:
    """Return the name of the schema in which jobs are."""
    return str(getattr(settings, "APP_JOBS_SCHEMA", "app_jobs"))


def conninfo() -> str:
    """Return the connection string of that database, from Django's settings."""
    known = {option.keyword.decode() for option in pq.Conninfo.get_defaults()}
    parameters = connections[database()].get_connection_params()
    return make_conninfo(
        **{name: value for name, value in parameters.items() if name in known and value}
    )


class DjangoClient(Client):
    """A Client all of whose calls join the transaction of Django's connection in this thread."""

    def __init__(self) -> None:
        super().__init__(schema=schema())

    def _call(self, function: Function[T], connection: Any, /, **arguments: Any) -> T:
        if connection is not None:
            return super()._call(function, connection, **arguments)
        query = _query(function, self._schema)
        try:
            with connections[database()].cursor() as cursor:
                cursor.execute(query, function.text_parameters(arguments))
                rows = cursor.fetchall()
        except Error as error:
            raise translate(error) from error
        return function.decode(rows)


@lru_cache
def _query(function: Function[Any], schema: str) -> str:
    return function.text_query(schema.replace("%", "%%"), lambda name, number: f"%({name})s")
