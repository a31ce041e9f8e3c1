begin;
\ir include/helpers.sql
select no_plan();

select is_empty('select from app_jobs.progress()', 'nobody says anything');

-- w1 holds a, b and c in their first leases, w2 holds d
do $$
begin
    perform app_jobs.register_worker('w1');
    perform app_jobs.register_worker('w2');
    perform app_jobs.add_job(identifier => 't', job_key => k.key)
    from unnest(array['a', 'b', 'c', 'd']) as k(key);
    perform app_jobs.get_jobs('w1', null, '1 h', 3);
    perform app_jobs.get_job('w2');
end;
$$;
create function pg_temp.reports(said text) returns json
language sql
as $$
    select json_agg(json_build_object(
        'job_id', (app_jobs.find_job(r.key)).id, 'lease', r.lease, 'done', r.done, 'note', r.note
    ))
    from json_to_recordset(said::json) as r(key text, lease integer, done real, note text)
$$;
create function pg_temp.said() returns setof text
language sql
as $$
    select format('%s %s %s %s %s', p.worker_id, j.key, p.task_identifier, p.done, p.note)
    from app_jobs.progress() as p
    inner join app_jobs.jobs as j on j.id = p.id
$$;

select app_jobs.set_progress('w1', pg_temp.reports(
    '[{"key": "a", "lease": 1, "done": 0.4, "note": "words"}, {"key": "b", "lease": 1, "done": 1},
    {"key": "c", "lease": 2, "done": 0.5}, {"key": "d", "lease": 1, "done": 0.5}]'
));
select app_jobs.set_progress('w2', pg_temp.reports('[{"key": "d", "lease": 1, "done": 0}]'));
select results_eq(
    'select pg_temp.said()',
    array['w1 a t 0.4 words', 'w1 b t 1 ', 'w2 d t 0 '],
    'what the holders say in the jobs'' own leases'
);

-- since when
update app_jobs.workers as w
set progress = replace(w.progress::text, to_char(now(), 'YYYY'), '2001')::jsonb;
select app_jobs.set_progress('w1', pg_temp.reports(
    '[{"key": "a", "lease": 1, "done": 0.4, "note": "other words"},
    {"key": "b", "lease": 1, "done": 1}]'
));
select results_eq(
    'select p.done, p.since > now() from app_jobs.progress() as p where p.worker_id = ''w1''',
    $$values (0.4::real, true), (1, false)$$,
    'what is said again has been said since the first time'
);

-- what ends
select lives_ok('select app_jobs.complete_job(''w1'', (app_jobs.find_job(''a'')).id)', 'a ends');
select results_eq('select pg_temp.said()', array['w1 b t 1 ', 'w2 d t 0 '], 'with its progress');
select app_jobs.set_progress('w1', '[]');
select results_eq('select pg_temp.said()', array['w2 d t 0 '], 'each call replaces the last one');
select lives_ok('select app_jobs.set_progress(''unknown'', ''[]'')', 'an unknown worker: nothing');

select pg_temp.refuses('select app_jobs.set_progress(null, ''[]'')', '22004', 'worker_id is null');
select pg_temp.refuses('select app_jobs.set_progress(''w'', null)', '22004', 'reports is null');
select pg_temp.refuses(
    'select app_jobs.set_progress(''w'', ''{}'')', '22023', 'reports is of type object'
);
select
    pg_temp.refuses(
        format('select app_jobs.set_progress(''w'', %L)', '[' || r.report || ']'),
        '22023', 'reports[0] is ' || r.report
    )
from unnest(array[
    '{"lease":1,"done":1}', '{"job_id":1,"done":1}', '{"job_id":1,"lease":1}',
    '{"job_id":1,"lease":1,"done":-0.1}', '{"job_id":1,"lease":1,"done":1.1}',
    '{"job_id":1,"lease":1,"done":"NaN"}'
]) as r (report);

select finish();
rollback;
