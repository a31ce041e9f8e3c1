begin;
\ir include/helpers.sql
select no_plan();

-- dead letters 1 to 10, the last to end first; 9 and 10 have a key each with another
insert into app_jobs.finished_jobs (
    id, task_identifier, payload, attributes, priority, run_at, attempts, max_attempts, lease,
    created_at, state, finished_at, keep_until, last_error, key
)
select
    n,
    case when n > 4 then 'b' else 'a' end,
    '{}',
    '{}',
    0,
    now(),
    25,
    25,
    25,
    now(),
    case when n = 4 then 'cancelled' else 'failed' end,
    now() - n * interval '1 min',
    now() + interval '1 day',
    'error ' || n,
    case when n in (8, 9) then 'twice' when n = 10 then 'live' end
from generate_series(1, 10) as n;
select setval('app_jobs.jobs_id_seq', 10000);
select from app_jobs.add_job(identifier => 'c', job_key => 'live');

create function pg_temp.redriven(arguments text) returns text
language plpgsql
as $$
declare
    v_list text;
begin
    execute format(
        'select string_agg(case when l.state is null then ''…'' else l.id::text end, '' '')
        from app_jobs.redrive_jobs(%s) as l', arguments
    ) into v_list;
    return v_list;
end;
$$;
select is(
    pg_temp.redriven('dry_run => true'), '1 2 3 5 6 7 9',
    'what would go: no cancelled job, one per key, none whose key lives'
);
select is(pg_temp.redriven('dry_run => true, task => ''a'', most => 2'), '1 2 …', 'and some of it');
select is(pg_temp.redriven('dry_run => true, search => ''error 5'''), '5', 'by its error');
select is(
    pg_temp.redriven(
        'dry_run => true, since => now() - interval ''3 min'', before => now() - interval ''1 min'''
    ),
    '2 3', 'by its end'
);
select is((select count(*) from app_jobs.jobs), 1::bigint, 'nothing has gone');

select is(pg_temp.redriven('task => ''a'''), '1 2 3', 'all at once');
select is(
    (select sum(m.ready) from app_jobs.metrics as m), 4::numeric, 'they are ready'
);
select is(pg_temp.redriven('per_second => 0.5'), '5 6 7 9', 'at a rate');
select results_eq(
    $$select j.id, j.run_at - now(), j.line collate "default" from app_jobs.jobs as j
    where j.task_identifier = 'b' order by j.id$$,
    $$values (5::bigint, interval '0', ''), (6, '2 s', null), (7, '4 s', null), (9, '6 s', null)$$,
    'each at its time'
);

-- many: not a step for each
insert into app_jobs.finished_jobs (
    id, task_identifier, payload, attributes, priority, run_at, attempts, max_attempts, lease,
    created_at, state, keep_until
)
select
    1000 + n,
    'many',
    '{}',
    '{}',
    0,
    now(),
    25,
    25,
    25,
    now(),
    'failed',
    now()
from generate_series(1, 1000) as n;
select is(
    (select count(*) from app_jobs.redrive_jobs('many', most => 2000, per_second => 2)),
    1000::bigint, 'a thousand'
);
select results_eq(
    $$select count(*), count(distinct j.run_at), max(j.run_at) - now()
    from app_jobs.jobs as j where j.task_identifier = 'many'$$,
    $$values (1000::bigint, 200::bigint, interval '497.5 s')$$,
    'in 200 steps'
);
select is(
    (select count(*) from app_jobs.redrive_jobs('many')), 0::bigint, 'nothing is left of them'
);

select pg_temp.refuses(
    'select app_jobs.redrive_jobs(per_second => 0)', '22023', 'per_second is 0'
);
select pg_temp.refuses('select app_jobs.redrive_jobs(most => 0)', '22023', 'most is 0');
select pg_temp.refuses(
    'select app_jobs.redrive_jobs(dry_run => null)', '22004', 'dry_run is null'
);

select finish();
rollback;
