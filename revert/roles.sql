-- Revert app_jobs:roles from pg

begin;

set local lock_timeout = '5s';

revoke usage on schema app_jobs
from app_jobs_producer, app_jobs_worker, app_jobs_operator, app_jobs_monitor;

-- Roles belong to the cluster: one that another database uses, or that we may not drop, stays.
do $$
declare
    v_role text;
begin
    foreach v_role in array array[
        'app_jobs_operator', 'app_jobs_monitor', 'app_jobs_worker', 'app_jobs_producer'
    ] loop
        begin
            execute format('drop role %I', v_role);
        exception when dependent_objects_still_exist or insufficient_privilege then
            raise notice 'role "%" stays: %', v_role, sqlerrm;
        end;
    end loop;
end;
$$;

commit;
