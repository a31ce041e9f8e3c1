"""The tables of the shop."""

from __future__ import annotations

from django.db import models


class User(models.Model):
    """Somebody who has signed up."""

    email = models.TextField(unique=True)
    welcomed = models.BooleanField(default=False)
