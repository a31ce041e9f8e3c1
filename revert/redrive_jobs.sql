-- Revert app_jobs:redrive_jobs from pg

begin;

set local lock_timeout = '5s';

drop function app_jobs.redrive_jobs(
    text, text, uuid, text, timestamptz, timestamptz, bigint, integer, numeric, boolean
);

commit;
