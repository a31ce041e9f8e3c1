-- Deploy app_jobs:operator_actions to pg
-- requires: arguments

begin;

set local lock_timeout = '5s';

create table app_jobs.operator_actions (
    id bigint generated always as identity,
    at timestamptz not null default clock_timestamp(),
    actor text not null,
    role text not null default session_user,
    action text not null,
    details jsonb not null default '{}',
    constraint operator_actions_pkey primary key (id)
);

create function app_jobs.record_action(
    actor text, action text, details jsonb default '{}'
) returns bigint
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set jit = off
set enable_seqscan = off
set enable_bitmapscan = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
    c_kept constant interval := interval '400 days';
    v_id bigint;
begin
    perform app_jobs.check_not_null('actor', record_action.actor is null, 'Name who acts.');
    perform app_jobs.check_length('actor', record_action.actor, 200);
    perform app_jobs.check_not_null('action', record_action.action is null, 'Say what is done.');
    perform app_jobs.check_length('action', record_action.action, 200);
    delete from app_jobs.operator_actions as a
    where a.id = any(array(
        select o.id
        from (
            select g.id, g.at from app_jobs.operator_actions as g
            order by g.id limit 100 for update skip locked
        ) as o
        where o.at < clock_timestamp() - c_kept
    ));
    insert into app_jobs.operator_actions as a (actor, action, details)
    values (
        record_action.actor, record_action.action, coalesce(record_action.details, '{}')
    )
    returning a.id into v_id;
    return v_id;
end;
$$;

revoke all on function app_jobs.record_action(text, text, jsonb) from public;
grant execute on function app_jobs.record_action(text, text, jsonb) to app_jobs_operator;
grant select on app_jobs.operator_actions to app_jobs_operator;

comment on table app_jobs.operator_actions is
'What people have done through a dashboard, or another tool that calls record_action(). Kept for 400
days.';
comment on column app_jobs.operator_actions.id is 'Order.';
comment on column app_jobs.operator_actions.at is 'When.';
comment on column app_jobs.operator_actions.actor is 'Who, as the tool knows them.';
comment on column app_jobs.operator_actions.role is 'The database role that the tool is connected as.';
comment on column app_jobs.operator_actions.action is 'What: the name of a function, say.';
comment on column app_jobs.operator_actions.details is 'With what: its arguments.';
comment on function app_jobs.record_action(text, text, jsonb) is
'Record who does what, in the transaction that does it: both are committed, or neither. Deletes some
records that are older than 400 days.

actor    who, 1 to 200 characters
action   what, 1 to 200 characters: the name of a function, say
details  with what: its arguments

Returns: the record''s id. Errors: 22004, 22023. Locks: none that anybody waits for. Roles:
app_jobs_operator.';

commit;
