"""What the queue promises, without a database: a job is an object, a queue a list.

Time does not pass by itself here: a job is due or it is not, and a lease ends when somebody says
so. Each method answers what the SQL function of the same name must answer.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import count

LATE = 10**6  # behind all that is added with a time of its own


@dataclass
class Job:
    """A live job: held by a worker, or waiting."""

    id: int
    task: str
    tenant: str | None = None
    queue: str | None = None
    key: str | None = None
    priority: int = 0
    due: bool = True
    max_attempts: int = 25
    attempts: int = 0
    lease: int = 0
    holder: str | None = None
    superseded: bool = False
    cancelled: bool = False
    processing: bool = False
    since: int = 0  # run_at, as a number


@dataclass
class Model:
    """All jobs, and the settings that decide which of them may run."""

    live: dict[int, Job] = field(default_factory=dict)
    finished: dict[int, tuple[str, Job]] = field(default_factory=dict)
    paused_tasks: set[str] = field(default_factory=set)
    kept_tasks: set[str] = field(default_factory=set)  # whose completed jobs are kept
    paused_queues: set[tuple[str | None, str]] = field(default_factory=set)
    limits: dict[tuple[str | None, str], int] = field(default_factory=dict)
    clock: count[int] = field(default_factory=lambda: count(1))

    # --- producers ---

    def holder_of(self, key: str | None, tenant: str | None) -> Job | None:
        """The live job under a key."""
        if key is None:
            return None
        found = [job for job in self.live.values() if (job.key, job.tenant) == (key, tenant)]
        assert len(found) <= 1
        return found[0] if found else None

    def add_job(self, job: Job, mode: str) -> int | None:
        """The id of the job that is kept or replaced; None: a new one is added."""
        old = self.holder_of(job.key, job.tenant)
        if old is None:
            kept = [
                done
                for _, done in self.finished.values()
                if job.key is not None and (done.key, done.tenant) == (job.key, job.tenant)
            ]
            return kept[-1].id if mode == "once" and kept else None
        if mode in ("keep", "once"):
            return old.id
        if old.holder is not None:
            old.key, old.superseded = None, True
            return None
        since, due = (old.since, old.due) if mode == "preserve_run_at" else (job.since, job.due)
        self.live[old.id] = replace(job, id=old.id, lease=old.lease, since=since, due=due)
        return old.id

    def set_run_at(self, job: Job, since: int, due: bool) -> bool:
        """Whether a job's time can be set: not while it is processing."""
        if not job.processing:
            job.since, job.due = since, due
        return not job.processing

    # --- operators, and applications that move jobs by id ---

    def cancel(self, job: Job) -> None:
        """Finish a job that waits or is processing, mark a running one."""
        if job.holder is None or job.processing:
            self.finish(job, "cancelled")
        else:
            job.cancelled = True

    def finish(self, job: Job, state: str | None) -> None:
        """It is over, and kept; or not kept, if the state is None."""
        del self.live[job.id]
        if state is not None:
            self.finished[job.id] = (state, job)

    def to_redrive(self) -> list[int]:
        """Dead letters whose key no live job has; of several with one key the last."""
        dead = [job for _, (state, job) in sorted(self.finished.items()) if state == "failed"]
        last = {(job.key, job.tenant): job.id for job in dead if job.key is not None}
        return [
            job.id
            for job in dead
            if job.key is None
            or (last[job.key, job.tenant] == job.id and not self.holder_of(job.key, job.tenant))
        ]

    def retry(self, ids: list[int]) -> list[int] | None:
        """The ids of the jobs that are back at work; None: a live job has the key of one."""
        again = [self.finished[n][1] for n in sorted(set(ids)) if n in self.finished]
        keys = [(job.key, job.tenant) for job in again if job.key is not None]
        if len(set(keys)) < len(keys) or any(self.holder_of(*key) for key in keys):
            return None
        since = LATE + next(self.clock)
        for job in again:
            del self.finished[job.id]
            self.live[job.id] = replace(
                Job(job.id, job.task, job.tenant, job.queue, job.key, job.priority),
                max_attempts=job.max_attempts,
                lease=job.lease,
                since=since,
            )
        return [job.id for job in again]

    # --- workers ---

    def get_jobs(self, worker: str, tasks: list[str] | None, limit: int) -> list[int]:
        """The ids of the jobs claimed, in order."""
        taken: list[int] = []
        for job in sorted(self.live.values(), key=lambda job: (job.priority, job.since, job.id)):
            if len(taken) == limit:
                break
            wanted = tasks is None or job.task in tasks
            if job.holder or not job.due or not wanted or job.task in self.paused_tasks:
                continue
            if job.queue is not None and not self._has_seat((job.tenant, job.queue)):
                continue
            job.holder = worker
            job.attempts += 1
            job.lease += 1
            taken.append(job.id)
        return taken

    def _has_seat(self, queue: tuple[str | None, str]) -> bool:
        held = sum((job.tenant, job.queue) == queue for job in self.live.values() if job.holder)
        return queue not in self.paused_queues and held < self.limits.get(queue, 1)

    def held(self, worker: str, job_id: int, lease: int | None = None) -> Job | None:
        """The job, if the worker holds it under that lease."""
        job = self.live.get(job_id)
        if job is None or job.holder != worker or lease not in (None, job.lease):
            return None
        return job

    def complete(self, job: Job) -> None:
        """It has succeeded, even if it was to be cancelled."""
        self.finish(job, "completed" if job.task in self.kept_tasks else None)

    def let_go(
        self, job: Job, *, delay: bool | None, counted: bool, permanent: bool = False
    ) -> None:
        """It has failed, or was given back: it waits again, or is finished.

        delay: True: until time has passed; False: from now; None: since when it waited before.
        """
        if job.cancelled:
            self.finish(job, "cancelled")
        elif permanent or (counted and (job.attempts >= job.max_attempts or job.superseded)):
            self.finish(job, "failed")
        else:
            job.holder, job.processing = None, False
            job.attempts -= 0 if counted else 1
            if delay is not None:
                job.due, job.since = not delay, LATE + next(self.clock)

    def heartbeat(self, worker: str) -> list[int]:
        """The ids of the jobs whose leases it renews."""
        return [j.id for j in self.leased(worker) if not j.cancelled]

    def leased(self, worker: str | None = None) -> list[Job]:
        """Jobs under a lease, of one worker or of all."""
        held = [job for job in self.live.values() if job.holder and not job.processing]
        return [job for job in held if worker in (None, job.holder)]
