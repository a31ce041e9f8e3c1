"""Effects that happen once: a payment at an outside service, and a transfer in this database.

app-jobs worker effects:tasks
app-jobs add charge '{"order": 7, "cents": 1250}'
app-jobs add transfer '{"source": 1, "target": 2, "cents": 300}'
"""

from __future__ import annotations

from typing import Any

from app_jobs import JobContext, Tasks

tasks = Tasks()


async def pay(cents: int) -> str:
    """Stand for a call of an outside service: charge the customer, return a receipt."""
    return f"receipt over {cents} cents"


async def mail(order: int, receipt: str) -> None:
    """Stand for what may be repeated."""
    print(f"order {order}: {receipt}")


@tasks.task("charge")
async def charge(payload: dict[str, Any], ctx: JobContext) -> None:
    """Should the mail fail, it is tried again, and the customer is not charged again."""
    receipt = await ctx.run_once("pay", pay, payload["cents"], nothing_done=ConnectionRefusedError)
    await mail(payload["order"], receipt)


@tasks.task("transfer")
async def transfer(payload: dict[str, Any], ctx: JobContext) -> None:
    """Both accounts are changed and the job is done, in one commit, or nothing is."""
    statement = "update accounts set cents = cents + %s where id = %s"
    async with ctx.transaction() as connection:
        await connection.execute(statement, [-payload["cents"], payload["source"]])
        await connection.execute(statement, [payload["cents"], payload["target"]])
        ctx.result = {"moved": payload["cents"]}
