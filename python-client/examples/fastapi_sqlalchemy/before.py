"""Sign-up with FastAPI and SQLAlchemy, as it was before app_jobs came."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException
from pydantic import BaseModel
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

url = os.environ["DATABASE_URL"].replace("postgresql://", "postgresql+psycopg://")
engine = create_async_engine(url)
new_session = async_sessionmaker(engine)


class Base(DeclarativeBase):
    """All tables."""


class User(Base):
    """Somebody who has signed up."""

    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(unique=True)


class SignUp(BaseModel):
    """What a form sends."""

    email: str


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Make the tables."""
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    yield
    await engine.dispose()


async def session() -> AsyncIterator[AsyncSession]:
    """Give each request a session."""
    async with new_session() as session:
        yield session


app = FastAPI(lifespan=lifespan)


@app.post("/users", status_code=201)
async def sign_up(form: SignUp, session: Annotated[AsyncSession, Depends(session)]) -> str:
    """Add a user, once."""
    try:
        session.add(User(email=form.email))
        await session.commit()
    except IntegrityError:
        raise HTTPException(409, "you have signed up before") from None
    return "welcome"
