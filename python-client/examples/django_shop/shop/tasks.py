"""The tasks of the shop."""

from __future__ import annotations

from shop.models import User

try:
    from django.tasks import task
except ModuleNotFoundError:
    from django_tasks import task


@task(priority=10)
def send_welcome(user_id: int) -> str:
    """Stand for a mail."""
    user = User.objects.get(id=user_id)
    print(f"welcome, {user.email}", flush=True)
    User.objects.filter(id=user_id).update(welcomed=True)
    return user.email
