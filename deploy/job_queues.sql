-- Deploy app_jobs:job_queues to pg
-- requires: jobs

begin;

set local lock_timeout = '5s';

-- Who reads the view needs the right to what it calls, so queue_line() stands here in full.
create table app_jobs.queue_settings (
    line text collate "C" not null,
    database_id uuid,
    queue_name text not null,
    max_running integer not null default 1,
    paused boolean not null default false,
    constraint queue_settings_pkey primary key (line),
    constraint queue_settings_line_named check (
        line = coalesce(database_id::text, '') || ':' || queue_name
    ),
    constraint queue_settings_max_running_positive check (max_running between 1 and 10000)
);

create view app_jobs.job_queues as
select
    coalesce(s.database_id, j.database_id) as database_id,
    coalesce(s.queue_name, j.queue_name) as queue_name,
    coalesce(j.job_count, 0) as job_count,
    j.locked_by,
    j.locked_at,
    coalesce(s.max_running, 1) as max_running,
    coalesce(s.paused, false) as paused
from app_jobs.queue_settings as s
full join (
    select
        coalesce(q.database_id::text, '') || ':' || q.queue_name as line,
        q.database_id,
        q.queue_name,
        count(*) as job_count,
        min(q.locked_by) filter (where q.seat is not null) as locked_by,
        min(q.locked_at) filter (where q.seat is not null) as locked_at
    from app_jobs.jobs as q
    where q.queue_name is not null
    group by q.database_id, q.queue_name
) as j on s.line = j.line;

grant select on app_jobs.queue_settings to app_jobs_operator;
grant select on app_jobs.job_queues to app_jobs_operator, app_jobs_monitor;

comment on table app_jobs.queue_settings is
'Queues that differ from the default of one job at a time. A queue needs no row here.';
comment on column app_jobs.queue_settings.line is 'queue_line(database_id, queue_name).';
comment on column app_jobs.queue_settings.database_id is 'Tenant; the same name under two tenants is two queues.';
comment on column app_jobs.queue_settings.queue_name is 'Queue.';
comment on column app_jobs.queue_settings.max_running is 'Seats: jobs that may run at once, 1 to 10000.';
comment on column app_jobs.queue_settings.paused is 'No job of a paused queue is claimed.';
comment on constraint queue_settings_line_named on app_jobs.queue_settings is 'The line is the queue''s own.';
comment on view app_jobs.job_queues is
'A row per named queue that has jobs or settings. Counted when read, so that producers of a queue
share no row; reads all of jobs.';
comment on column app_jobs.job_queues.database_id is 'Tenant.';
comment on column app_jobs.job_queues.queue_name is 'Queue.';
comment on column app_jobs.job_queues.job_count is 'Live jobs, in whatever state.';
comment on column app_jobs.job_queues.locked_by is 'A worker that runs one of its jobs.';
comment on column app_jobs.job_queues.locked_at is 'Since when the longest running one runs.';
comment on column app_jobs.job_queues.max_running is 'Jobs that may run at once.';
comment on column app_jobs.job_queues.paused is 'No job of it is claimed.';

commit;
