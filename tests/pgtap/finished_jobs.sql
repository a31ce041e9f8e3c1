begin;
\ir include/helpers.sql
select no_plan();

select
    lives_ok(
        format(
            'insert into app_jobs.finished_jobs (
            id, task_identifier, payload, attributes, priority, run_at, attempts,
            max_attempts, lease, created_at, state, keep_until)
        values (%s, ''t'', ''{}'', ''{}'', 0, now(), 1, 1, 1, now(), %L, now())',
            n, state
        ),
        state
    )
from unnest(array['completed', 'failed', 'cancelled']) with ordinality as s (state, n);
select throws_ok(
    $$update app_jobs.finished_jobs set state = 'gone'$$, '23514', null, 'a state is one of three'
);
select throws_ok('update app_jobs.finished_jobs set id = 1', '23505', null, 'a job ends once');

insert into app_jobs.job_errors (job_id, lease, attempt) values (1, 1, 1), (1, 2, 2);
select throws_ok(
    'insert into app_jobs.job_errors (job_id, lease, attempt) values (1, 2, 2)', '23505', null,
    'a claim fails once'
);

select finish();
rollback;
