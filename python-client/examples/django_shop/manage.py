"""A small site with django.tasks (Django 6), or its backport django-tasks, on app_jobs.

python manage.py migrate
python manage.py sign_up ada@example.org
python manage.py app_jobs_worker
"""

from __future__ import annotations

import os
import sys

from django.core.management import execute_from_command_line

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")
execute_from_command_line(sys.argv)
