"""The application that Django installs."""

from __future__ import annotations

from typing import Any

from django.apps import AppConfig
from django.db.models.signals import pre_migrate

from app_jobs import migrate
from app_jobs.django import conninfo, database, schema


class AppJobsConfig(AppConfig):
    """Deploys the schema before Django's own migrations, which may want to make triggers."""

    name = "app_jobs.django"
    label = "app_jobs"
    verbose_name = "app_jobs"

    def ready(self) -> None:
        """Listen for `manage.py migrate`."""
        pre_migrate.connect(_deploy, sender=self)


def _deploy(using: str, verbosity: int = 1, **_: Any) -> None:
    if using == database():
        migrate.migrate(conninfo(), log=print if verbosity > 1 else _silent, schema=schema())


def _silent(message: str) -> None:
    pass
