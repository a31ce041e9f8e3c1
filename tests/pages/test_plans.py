"""Plans of the hot statements: by index or row address, whatever the statistics, never compiled.

auto_explain shows the plan of every statement within the functions.
"""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest
from psycopg.errors import Diagnostic

LARGE = {
    "jobs",
    "streams",
    "alarms",
    "finished_jobs",
    "job_errors",
    "effects",
    "slot_counts",
    "scheduled_jobs",
}
HELD = "(select id from app_jobs.jobs where locked_by = 'w' limit 50)"
SOME = "(select id from app_jobs.jobs limit 50)"
HOT = [
    "select app_jobs.add_job(identifier => 'a', job_key => 'k', queue_name => 'q')",
    "select app_jobs.get_jobs('w', array['noop', 'a'], '1 hour', 100)",
    "select app_jobs.get_job('w')",
    f"select app_jobs.heartbeat('w', array{HELD})",
    f"select app_jobs.begin_once('w', h.id, 'e') from {HELD} as h",
    f"select app_jobs.complete_jobs('w', array{HELD})",
    "select app_jobs.fail_jobs('w', coalesce("
    f"(select json_agg(json_build_object('job_id', h.id)) from {HELD} as h), '[]'))",
    "select app_jobs.run_due_schedules()",
    "select app_jobs.tick()",
    "select app_jobs.release_jobs('w')",
    "select * from app_jobs.metrics",
    "select * from app_jobs.doctor()",
    "select app_jobs.explain_job(coalesce((select max(id) from app_jobs.jobs), 0))",
    f"select app_jobs.reschedule_jobs(array{SOME}, now(), 1)",
    f"select app_jobs.cancel_jobs(array{SOME})",
    f"select app_jobs.complete_jobs(array{SOME})",
    f"select app_jobs.permanently_fail_jobs(array{SOME})",
    "select app_jobs.retry_jobs(array(select id from app_jobs.finished_jobs limit 50))",
    "select app_jobs.prune('1 day', 50)",
    "select app_jobs.prune(batch => 50)",
]


def bad_scans(plan: dict[str, Any], parent: str = "") -> list[str]:
    """Scans of large tables that read all of the table, or all of an index."""
    kind = plan["Node Type"]
    read_whole = kind == "Seq Scan" or (
        kind in ("Index Scan", "Index Only Scan") and "Index Cond" not in plan and parent != "Limit"
    )
    bad = [f"{kind} on {plan['Relation Name']}"] if read_whole and is_large(plan) else []
    return bad + [scan for child in plan.get("Plans", []) for scan in bad_scans(child, kind)]


def is_large(plan: dict[str, Any]) -> bool:
    return plan.get("Relation Name") in LARGE


@pytest.mark.parametrize("filled", ["empty", "after-it-was-empty", "analyzed"])
def test_plans(database: str, filled: str) -> None:
    shown: list[str] = []

    def keep(notice: Diagnostic) -> None:
        text = notice.message_primary or ""
        if text.startswith("duration: "):  # auto_explain's; prune() has something to say, too
            shown.append(text)

    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("analyze app_jobs.jobs, app_jobs.streams, app_jobs.alarms")
        connection.execute(
            "insert into app_jobs.tasks (task_identifier, keep_completed) values ('noop', '1 day')"
        )
        if filled != "empty":
            connection.execute(
                "insert into app_jobs.scheduled_jobs (task_identifier, schedule_info, next_run_at)"
                """ select 'a', '{"every": "1 hour"}', now() + (n - 1) * interval '1 minute'"""
                " from generate_series(1, 5000) as n"
            )
            connection.execute(
                "select count(*) from app_jobs.add_jobs("
                "'noop', array(select '{}'::json from generate_series(1, 50000)))"
            )
        if filled == "analyzed":
            connection.execute("analyze")
        connection.execute("load 'auto_explain'")
        for setting in ("log_min_duration = 0", "log_nested_statements = on", "log_format = json"):
            connection.execute(f"set auto_explain.{setting}")
        connection.execute("set auto_explain.log_level = notice; set jit = on")
        connection.add_notice_handler(keep)
        for statement in HOT:
            shown.clear()
            connection.execute(statement)
            assert shown, "auto_explain said nothing"
            # the last plan is that of the statement itself, which is the test's
            for text in shown[:-1]:
                explained = json.loads(text[text.index("{") :])
                assert "JIT" not in explained, explained["Query Text"]
                bad = bad_scans(explained["Plan"])
                assert not bad, f"{statement}: {bad} in {explained['Query Text']}"
