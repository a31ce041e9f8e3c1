"""Delayed tasks that go through an outside queue: Redis with rq.

A reminder waits in PostgreSQL until its time. Then it is handed to rq, and whoever runs it there
moves it to done. Start, in this folder (pip install app-jobs 'psycopg[binary]' rq):

    export DATABASE_URL=postgresql://localhost/mydb REDIS_URL=redis://localhost
    rq worker --url $REDIS_URL reminders &
    python delayed_tasks.py
"""

from __future__ import annotations

import os
import time

from redis import Redis
from rq import Queue

from app_jobs import DelayedTasks, Job

DATABASE_URL = os.environ["DATABASE_URL"]
REDIS_URL = os.environ["REDIS_URL"]


def remind(job_id: int, who: str, what: str) -> None:
    """Run in a process of rq."""
    with DelayedTasks(DATABASE_URL) as tasks:
        print(f"{who}: {what}", flush=True)
        tasks.move_job_to_done(job_id)


def hand_over(job: Job) -> None:
    """Run here, when a reminder's time has come."""
    outside.enqueue("delayed_tasks.remind", job.id, **job.payload)
    # Should we die before this line, the job appears again after 30 seconds, and rq gets it twice:
    # at least once, as with any two systems. Should rq be faster than we are, it is done already.
    tasks.move_job_to_processing(job.id)


if __name__ == "__main__":
    outside = Queue("reminders", connection=Redis.from_url(REDIS_URL))
    with DelayedTasks(DATABASE_URL) as tasks:
        tasks.start()
        tasks.process_jobs("remind", hand_over, heart_beat=1)
        job_id = tasks.add_job("remind", {"who": "Ada", "what": "tea"}, run_after_seconds=1)
        state = None
        while state not in ("completed", "failed"):
            time.sleep(0.2)
            job = tasks.get_job(job_id)
            if job is not None and job.state != state:
                state = job.state
                print(f"reminder {job_id} is {state}")
