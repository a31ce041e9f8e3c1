"""Sign-up with SQLAlchemy: the user and the job are committed together, or neither is.

python signup_sqlalchemy.py ada@example.org
"""

from __future__ import annotations

import os
import sys

from signup_jobs import Welcome, send_welcome
from sqlalchemy import create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from app_jobs.sqlalchemy import SessionClient


class Base(DeclarativeBase):
    """All tables."""


class User(Base):
    """Somebody who has signed up."""

    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(unique=True)


engine = create_engine(os.environ["DATABASE_URL"].replace("postgresql://", "postgresql+psycopg://"))
with Session(engine) as session, session.begin():
    send_welcome.enqueue(SessionClient(session), Welcome(sys.argv[1]))
    session.add(User(email=sys.argv[1]))
