begin;
\ir include/helpers.sql
select no_plan();

select app_jobs.record_action('ada', 'cancel_jobs', '{"job_ids": [7]}');
select results_eq(
    $$select
        a.actor, a.role collate "default", a.action, a.details, a.at <= clock_timestamp()
    from app_jobs.operator_actions as a$$,
    $$values (
        'ada', session_user::text collate "default", 'cancel_jobs', jsonb '{"job_ids": [7]}', true
    )$$,
    'who did what, when'
);
select app_jobs.record_action('ada', 'tick', null);
update app_jobs.operator_actions set at = now() - interval '401 days'
where action = 'cancel_jobs';
select app_jobs.record_action('eve', 'tick');
select results_eq(
    $$select a.actor, a.details from app_jobs.operator_actions as a order by a.id$$,
    $$values ('ada', jsonb '{}'), ('eve', '{}')$$,
    'what is older than 400 days goes'
);
insert into app_jobs.operator_actions (actor, action, at)
select
    'old',
    'tick',
    now() - interval '401 days'
from generate_series(1, 150);
delete from app_jobs.operator_actions
where actor <> 'old';
select app_jobs.record_action('ada', 'tick');
select is((select count(*) from app_jobs.operator_actions), 51::bigint, 'a hundred at a time');

select pg_temp.refuses('select app_jobs.record_action(null, ''x'')', '22004', 'actor is null');
select pg_temp.refuses('select app_jobs.record_action(''x'', null)', '22004', 'action is null');
select pg_temp.refuses(
    'select app_jobs.record_action('''', ''x'')', '22023', 'actor has 0 characters: ""'
);
select is(
    pg_temp.callers('select from app_jobs.operator_actions'), 'operator', 'who may read them'
);

select finish();
rollback;
