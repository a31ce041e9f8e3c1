-- Revert app_jobs:heartbeat from pg

begin;

set local lock_timeout = '5s';

drop function app_jobs.heartbeat(text, bigint[], interval);
drop function app_jobs.held_by(text);

commit;
