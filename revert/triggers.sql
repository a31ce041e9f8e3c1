-- Revert app_jobs:triggers from pg

begin;

set local lock_timeout = '5s';

drop function app_jobs.tg_add_jobs_with_rows();
drop function app_jobs.tg_add_job_with_fields();
drop function app_jobs.tg_add_job_with_row();
drop function app_jobs.tg_add_job_with_row_id();
drop function app_jobs.add_job_for_row(record, oid, text, text[], json);
drop function app_jobs.check_trigger(oid, text, text[], text, text, integer, integer, text);
drop function app_jobs.tenant_column(oid, text, text);
drop function app_jobs.column_type(oid, text, text, text);
drop function app_jobs.row_as_json(record, oid);
drop function app_jobs.field_as_json(record, oid, text);
drop function app_jobs.has_built_in_columns(oid);
drop function app_jobs.json_columns(oid, text);
drop function app_jobs.json_expression(oid, text);
drop function app_jobs.is_built_in(oid);

commit;
