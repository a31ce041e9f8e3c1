-- Revert app_jobs:scheduled_jobs from pg

begin;

set local lock_timeout = '5s';

-- Before the look, so that nobody adds a schedule after it.
lock table app_jobs.scheduled_jobs in access exclusive mode;

do $$
declare
    v_schedules bigint;
begin
    if coalesce(nullif(current_setting('app_jobs.allow_data_loss', true), ''), 'off')::boolean then
        return;
    end if;
    select count(*) into v_schedules from app_jobs.scheduled_jobs;
    if v_schedules > 0 then
        raise exception '% schedules would be lost', v_schedules
            using errcode = 'JQ002',
                hint = 'Delete them, or: set app_jobs.allow_data_loss = on '
                    '(for Sqitch: PGOPTIONS="-c app_jobs.allow_data_loss=on").';
    end if;
end;
$$;

drop function app_jobs.list_scheduled_jobs(text);
drop function app_jobs.add_scheduled_job(
    uuid, text, json, json, text, text, integer, integer, text, text, jsonb, text
);
drop table app_jobs.scheduled_jobs;
drop function app_jobs.tg_place_schedule();

commit;
