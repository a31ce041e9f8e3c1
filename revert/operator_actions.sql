-- Revert app_jobs:operator_actions from pg

begin;

set local lock_timeout = '5s';

drop function app_jobs.record_action(text, text, jsonb);
drop table app_jobs.operator_actions;

commit;
