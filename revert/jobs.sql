-- Revert app_jobs:jobs from pg

begin;

set local lock_timeout = '5s';

-- Before the look, so that nobody adds a job after it.
lock table app_jobs.jobs in access exclusive mode;

do $$
declare
    v_jobs bigint;
begin
    if coalesce(nullif(current_setting('app_jobs.allow_data_loss', true), ''), 'off')::boolean then
        return;
    end if;
    select count(*) into v_jobs from app_jobs.jobs;
    if v_jobs > 0 then
        raise exception '% unfinished jobs would be lost', v_jobs
            using errcode = 'JQ002',
                hint = 'Let workers finish them, or: set app_jobs.allow_data_loss = on '
                    '(for Sqitch: PGOPTIONS="-c app_jobs.allow_data_loss=on").';
    end if;
end;
$$;

drop table app_jobs.jobs;
drop function app_jobs.queue_line(uuid, text);

commit;
