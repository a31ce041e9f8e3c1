"""Sign-up with psycopg: the user and the job are committed together, or neither is.

python signup_psycopg.py ada@example.org
"""

from __future__ import annotations

import os
import sys

import psycopg
from signup_jobs import Welcome, send_welcome

from app_jobs import Client

with psycopg.connect(os.environ["DATABASE_URL"]) as connection:
    client = Client()  # opens no connection: it is given one
    send_welcome.enqueue(client, Welcome(sys.argv[1]), connection=connection)
    connection.execute("insert into users (email) values (%s)", [sys.argv[1]])
