-- Deploy app_jobs:schema to pg

begin;

set local lock_timeout = '5s';

-- A schema of this name that we did not make may hold somebody's data: touch nothing.
do $$
begin
    if to_regnamespace('app_jobs') is not null then
        raise exception 'schema "app_jobs" exists and was not made by this deployment'
            using errcode = 'JQ091',
                detail = 'Sqitch''s registry has no record of it in this database.',
                hint = 'Rename or drop that schema, or point the deployment at another database.';
    end if;
end;
$$;

create schema app_jobs;
revoke all on schema app_jobs from public;

comment on schema app_jobs is
'A job queue. Producers call add_job(), workers get_jobs() and complete_jobs(); \df+ app_jobs.* is
the manual.';

commit;
