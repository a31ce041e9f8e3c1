-- Revert app_jobs:doctor from pg

begin;

set local lock_timeout = '5s';

drop function app_jobs.doctor();
drop function app_jobs.diagnose_rights();
drop function app_jobs.diagnose_tables();
drop function app_jobs.diagnose_server(interval);
drop function app_jobs.diagnose_slots();
drop function app_jobs.diagnose_jobs();
drop type app_jobs.finding;

commit;
