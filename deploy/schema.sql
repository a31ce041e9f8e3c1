-- Deploy app_jobs:schema to pg

begin;

set local lock_timeout = '5s';

-- A schema of this name that we did not make may hold somebody's data: touch nothing.
do $$
declare
    v_extension name;
begin
    if to_regnamespace('app_jobs') is null then
        return;
    end if;
    select e.extname into v_extension
    from pg_class as c
    inner join pg_depend as d on d.classid = 'pg_class'::regclass and d.objid = c.oid
    inner join pg_extension as e
        on d.refclassid = 'pg_extension'::regclass and d.refobjid = e.oid and d.deptype = 'e'
    where c.relnamespace = to_regnamespace('app_jobs')
    limit 1;
    if found then
        raise exception 'schema "app_jobs" exists: extension "%" made it', v_extension
            using errcode = 'JQ091',
                hint = format('ALTER EXTENSION %I UPDATE brings it up to date.', v_extension);
    end if;
    raise exception 'schema "app_jobs" exists and was not made by this deployment'
        using errcode = 'JQ091',
            detail = 'If it is a deployed job queue, Sqitch''s registry tells which changes it has.',
            hint = 'A deployed job queue is upgraded with `app-jobs migrate` or `make deploy`. A '
                'schema of somebody else: rename or drop it, or choose another database or name.';
end;
$$;

create schema app_jobs;
revoke all on schema app_jobs from public;

comment on schema app_jobs is
'A job queue. Producers call add_job(), workers get_jobs() and complete_jobs(); \df+ app_jobs.* is
the manual.';

commit;
