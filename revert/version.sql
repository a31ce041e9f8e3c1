-- Revert app_jobs:version from pg

begin;

set local lock_timeout = '5s';

-- With triggers in use or jobs unfinished, a change further down would refuse to go. So refuse here
-- already, with the last change of the plan: what is left must be a queue that works.
do $$
declare
    v_triggers text;
    v_jobs bigint;
    v_schedules bigint;
begin
    select string_agg(format('"%s" on table %s', t.tgname, t.tgrelid::regclass), ', ')
    into v_triggers
    from pg_trigger as t
    inner join pg_proc as p on p.oid = t.tgfoid
    inner join pg_class as c on c.oid = t.tgrelid
    where
        p.pronamespace = 'app_jobs'::regnamespace
        and c.relnamespace <> 'app_jobs'::regnamespace
        and t.tgparentid = 0;
    if v_triggers is not null then
        raise exception 'triggers call functions of app_jobs: %', v_triggers
            using errcode = 'JQ002', hint = 'Drop these triggers first.';
    end if;
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
    select count(*) into v_schedules from app_jobs.scheduled_jobs;
    if v_schedules > 0 then
        raise exception '% schedules would be lost', v_schedules
            using errcode = 'JQ002',
                hint = 'Delete them, or: set app_jobs.allow_data_loss = on '
                    '(for Sqitch: PGOPTIONS="-c app_jobs.allow_data_loss=on").';
    end if;
end;
$$;

drop function app_jobs.version();

commit;
