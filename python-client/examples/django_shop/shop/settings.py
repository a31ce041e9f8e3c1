"""Settings of the site; DATABASE_URL says where the database is."""

from __future__ import annotations

import os

from psycopg.conninfo import conninfo_to_dict

database = conninfo_to_dict(os.environ["DATABASE_URL"])

SECRET_KEY = "an example has none"
USE_TZ = True
INSTALLED_APPS = ["app_jobs.django", "shop"]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": database.get("dbname"),
        "USER": database.get("user"),
        "PASSWORD": database.get("password"),
        "HOST": database.get("host"),
        "PORT": database.get("port"),
    }
}
TASKS = {"default": {"BACKEND": "app_jobs.django.backend.AppJobsBackend"}}
