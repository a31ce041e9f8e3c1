"""Sign-up with asyncpg: the user and the job are committed together, or neither is.

python signup_asyncpg.py ada@example.org
"""

from __future__ import annotations

import asyncio
import os
import sys

import asyncpg
from signup_jobs import Welcome, send_welcome

from app_jobs.asyncpg import AsyncpgClient


async def sign_up(email: str) -> None:
    """Add a user, once."""
    connection = await asyncpg.connect(os.environ["DATABASE_URL"])
    async with connection.transaction():
        await send_welcome.enqueue(AsyncpgClient(connection), Welcome(email))
        await connection.execute("insert into users (email) values ($1)", email)
    await connection.close()


asyncio.run(sign_up(sys.argv[1]))
