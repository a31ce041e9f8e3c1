"""manage.py sign_up: the user and the job are committed together, or neither is."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandParser
from django.db import transaction

from shop.models import User
from shop.tasks import send_welcome


class Command(BaseCommand):
    """Stands for a view."""

    def add_arguments(self, parser: CommandParser) -> None:
        """Say what can be given."""
        parser.add_argument("emails", nargs="+")

    def handle(self, emails: list[str], **_: Any) -> None:
        """Add users, all or none."""
        with transaction.atomic():
            for email in emails:
                user = User.objects.create(email=email)
                send_welcome.enqueue(user.id)
