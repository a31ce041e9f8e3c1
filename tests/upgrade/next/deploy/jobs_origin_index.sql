-- Deploy app_jobs:jobs_origin_index to pg
-- requires: jobs_origin

begin;

set local lock_timeout = '5s';

-- Who has many jobs makes it CONCURRENTLY when the column is there, as the changelog says; here
-- producers and workers wait until all jobs are read.
create index if not exists jobs_origin on app_jobs.jobs (origin) where origin <> 'unknown';

comment on index app_jobs.jobs_origin is 'Jobs whose origin is known.';

commit;
