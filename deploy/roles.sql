-- Deploy app_jobs:roles to pg
-- requires: schema

begin;

set local lock_timeout = '5s';

-- Roles belong to the cluster: another database may have made them, or the DBA by hand. Whoever may
-- not make them is told what to ask for, and deploys again once it is done.
do $$
declare
    c_roles constant text [] := array[
        'app_jobs_producer', 'app_jobs_worker', 'app_jobs_operator', 'app_jobs_monitor'
    ];
    v_role text;
begin
    foreach v_role in array c_roles loop
        if to_regrole(v_role) is null then
            -- a role's name cannot be a parameter of a static statement
            execute format('create role %I nologin', v_role);
            execute format('comment on role %I is %L', v_role, case v_role
                when 'app_jobs_producer' then 'May add jobs, find and cancel them by key.'
                when 'app_jobs_worker' then 'May claim, finish and renew jobs, and call tick().'
                when 'app_jobs_operator' then 'May steer app_jobs and read all of its tables.'
                else 'May read the state of app_jobs, but no payload.'
            end);
        end if;
    end loop;
    -- An operator may do what producers, workers and monitors may. Repeating the grant is harmless,
    -- but needs the admin option on roles that others made, so ask first.
    if not pg_has_role('app_jobs_operator', 'app_jobs_producer', 'usage')
        or not pg_has_role('app_jobs_operator', 'app_jobs_worker', 'usage')
        or not pg_has_role('app_jobs_operator', 'app_jobs_monitor', 'usage')
    then
        grant app_jobs_producer, app_jobs_worker, app_jobs_monitor to app_jobs_operator;
    end if;
exception when insufficient_privilege then
    raise exception 'role "%" may not make the roles of app_jobs: %', current_user, sqlerrm
        using errcode = '42501',
            hint = 'Have this run by somebody who may, then deploy again: ' || coalesce((
                select string_agg(format('create role %I nologin; ', r.name), '')
                from unnest(c_roles) as r(name)
                where to_regrole(r.name) is null
            ), '') || 'grant app_jobs_producer, app_jobs_worker, app_jobs_monitor '
            'to app_jobs_operator;';
end;
$$;

grant usage on schema app_jobs
to app_jobs_producer, app_jobs_worker, app_jobs_operator, app_jobs_monitor;

commit;
