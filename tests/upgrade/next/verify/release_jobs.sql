-- Verify app_jobs:release_jobs on pg

begin;

select has_function_privilege('app_jobs.release_jobs(text, integer)', 'execute');

rollback;
