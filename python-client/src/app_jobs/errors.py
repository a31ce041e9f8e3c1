"""What can go wrong, as exceptions that are chosen by SQLSTATE alone."""

from __future__ import annotations


class AppJobsError(Exception):
    """Base of all errors of app_jobs.

    `sqlstate` is the five-character code, `detail` and `hint` what the database (or the client,
    where it noticed first) has to add: what happened exactly, and the next step. Each may be None.
    Errors that have nothing to do with app_jobs, a lost connection say, stay psycopg's own.
    """

    sqlstate: str | None = None

    def __init__(
        self,
        message: str,
        *,
        sqlstate: str | None = None,
        detail: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.sqlstate = sqlstate or type(self).sqlstate
        self.detail = detail
        self.hint = hint

    def __str__(self) -> str:
        lines = [self.message]
        if self.detail:
            lines.append(f"DETAIL: {self.detail}")
        if self.hint:
            lines.append(f"HINT: {self.hint}")
        return "\n".join(lines)


class BadArgument(AppJobsError, ValueError):
    """An argument has a value that is not allowed (22023), or is null where none may be (22004)."""

    sqlstate = "22023"


class UnknownJob(AppJobsError):
    """There is no such job (JQ001)."""

    sqlstate = "JQ001"


class NotSupported(AppJobsError):
    """Not possible in the state that the job, or the transaction, is in (JQ002)."""

    sqlstate = "JQ002"


class InDoubt(AppJobsError):
    """An effect was started and never finished; only a person can know its outcome (JQ003)."""

    sqlstate = "JQ003"


class AlreadyScheduled(AppJobsError):
    """The schedule's last job still waits or runs (JQ004)."""

    sqlstate = "JQ004"


class KeyInUse(AppJobsError):
    """Another live job has the key (JQ005)."""

    sqlstate = "JQ005"


class ForeignSchema(AppJobsError):
    """The schema exists, and something else made it (JQ091)."""

    sqlstate = "JQ091"


class NotPermitted(AppJobsError):
    """The database role lacks a right (42501)."""

    sqlstate = "42501"


class VersionMismatch(AppJobsError):
    """Client and schema do not fit together; the hint says which side to upgrade."""


class SchemaMissing(VersionMismatch):
    """The database has no such schema yet."""


class SchemaTooOld(VersionMismatch):
    """The schema is older than the client."""


class SchemaTooNew(VersionMismatch):
    """The schema is more than one version ahead of the client."""


_BY_SQLSTATE: dict[str, type[AppJobsError]] = {
    "22004": BadArgument,
    **{
        kind.sqlstate: kind
        for kind in (
            BadArgument,
            UnknownJob,
            NotSupported,
            InDoubt,
            AlreadyScheduled,
            KeyInUse,
            ForeignSchema,
            NotPermitted,
        )
        if kind.sqlstate
    },
}


def translate(error: Exception) -> Exception:
    """Return the exception to raise for a database error: ours where the SQLSTATE is ours.

    The error is psycopg's or asyncpg's, or one that SQLAlchemy or Django has wrapped around one.
    """
    found, sqlstate = error, None
    origin: BaseException | None = error
    for _ in range(3):  # SQLAlchemy's, its driver's adapter's, asyncpg's
        state = getattr(origin, "sqlstate", None) or getattr(origin, "pgcode", None)
        if isinstance(origin, Exception) and isinstance(state, str):
            found, sqlstate = origin, state
        origin = getattr(origin, "orig", None) or getattr(origin, "__cause__", None)
    if sqlstate is None:
        return error
    kind = _BY_SQLSTATE.get(sqlstate, AppJobsError if sqlstate.startswith("JQ") else None)
    if kind is None:
        return error
    # psycopg has the server's words in `diag`, asyncpg in the exception.
    words = getattr(found, "diag", found)
    return kind(
        getattr(words, "message_primary", None) or str(getattr(found, "message", found)),
        sqlstate=sqlstate,
        detail=getattr(words, "message_detail", None) or getattr(words, "detail", None),
        hint=getattr(words, "message_hint", None) or getattr(words, "hint", None),
    )
