begin;
\ir include/helpers.sql
select no_plan();

select setval('app_jobs.ticked_at', 0);
select results_eq(
    'select ticked_ago, schedules_behind, schedule_delay from app_jobs.vital_signs()',
    $$values (null::interval, 0::bigint, interval '0')$$,
    'nothing has run, nothing is late'
);
select app_jobs.tick();
select ok(ticked_ago < interval '1 min', 'the last tick') from app_jobs.vital_signs();

select (app_jobs.add_scheduled_job(identifier => 'a', schedule_info => '{"every": "1 h"}')).id
    as late
\gset
select app_jobs.add_scheduled_job(identifier => 'b', schedule_info => '{"every": "1 h"}');
update app_jobs.scheduled_jobs set next_run_at = now() - interval '10 min'
where id = :late;
select results_eq(
    $$select schedules_behind, date_trunc('minute', schedule_delay) from app_jobs.vital_signs()$$,
    $$values (1::bigint, interval '10 min')$$,
    'a schedule that is late'
);

select ok(oldest_transaction >= interval '0' and transactions_behind >= 0, 'snapshots')
from app_jobs.vital_signs();
select ok(sees_sessions, 'a superuser sees all') from app_jobs.vital_signs();
select is(pg_temp.callers('select app_jobs.vital_signs()'), 'operator monitor', 'who may');

select finish();
rollback;
