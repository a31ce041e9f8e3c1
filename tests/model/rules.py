"""What holds after every call, whoever made it: a query for the jobs of which it does not."""

BROKEN = """
    select 'held and waiting, or more than one', j.id from app_jobs.jobs as j
    where (j.locked_by is not null) and (j.line is not null)
    union all
    select 'on no seat', j.id from app_jobs.jobs as j
    where (j.locked_by is not null and j.queue_name is not null) <> (j.seat is not null)
    union all
    select 'two on a seat', min(j.id) from app_jobs.jobs as j where j.seat is not null
    group by j.database_id, j.queue_name, j.seat having count(*) > 1
    union all
    select 'in a slot that is not listed', j.id from app_jobs.jobs as j
    where
        j.slot not in (
            select o.slot from app_jobs.open_slots as o where o.slot >= app_jobs.first_slot()
        )
        -- a processing job has nothing that could come
        and (j.locked_by is null or j.lease_expires_at is not null)
        and not exists (
            select from app_jobs.streams as s
            where
                s.slot = j.slot and s.line = j.line and s.task_identifier = j.task_identifier
                and (s.priority, s.run_at, s.id) <= (j.priority, j.run_at, j.id)
        )
        and not exists (
            select from app_jobs.alarms as a
            where
                a.slot = j.slot and j.line is null
                and a.due_at <= coalesce(j.lease_expires_at, j.run_at)
                and a.kind = case when j.locked_by is null then 'run' else 'lease' end
        )
"""
