-- Verify app_jobs:jobs_origin_index on pg

begin;

select 1 / (to_regclass('app_jobs.jobs_origin') is not null)::integer;

rollback;
