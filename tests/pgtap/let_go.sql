begin;
\ir include/helpers.sql
select no_plan();

-- A job under the key k, claimed by w; what becomes of it when its attempt ends in whatever way.
create function pg_temp.run_job(max_attempts integer default 25) returns bigint
language plpgsql
as $$
begin
    delete from app_jobs.jobs;
    delete from app_jobs.finished_jobs;
    delete from app_jobs.job_errors;
    perform app_jobs.add_job(identifier => 't', job_key => 'k', max_attempts => run_job.max_attempts);
    return (app_jobs.get_job('w', job_expiry => '1 h')).id;
end;
$$;
create function pg_temp.let_it_go(how text, job_id bigint) returns void
language plpgsql
as $$
begin
    case how
        when 'complete' then perform app_jobs.complete_job('w', job_id);
        when 'fail' then perform app_jobs.fail_job('w', job_id, 'no');
        when 'fail for good' then perform app_jobs.fail_job('w', job_id, 'no', permanent => true);
        when 'snooze' then perform app_jobs.snooze_job('w', job_id, '1 h');
        when 'release' then perform app_jobs.release_jobs('w');
        when 'expire' then
            update app_jobs.jobs set lease_expires_at = clock_timestamp() - interval '1 s' where id = job_id;
            perform app_jobs.tick();
    end case;
end;
$$;
-- state, attempts, last error, errors noted
create function pg_temp.outcome(how text, prepared text, max_attempts integer) returns text
language plpgsql
as $$
declare
    v_id bigint := pg_temp.run_job(outcome.max_attempts);
begin
    case prepared
        when 'cancelled' then perform app_jobs.cancel_job('k', reason => 'why not');
        when 'superseded' then perform app_jobs.add_job(identifier => 'other', job_key => 'k');
        else null;
    end case;
    perform pg_temp.let_it_go(outcome.how, v_id);
    return coalesce(
        (
            select concat_ws(' ', f.state, f.attempts, f.last_error, f.finished_by)
            from app_jobs.finished_jobs as f where f.id = v_id
        ),
        (
            select concat_ws(
                ' ',
                case
                    when j.locked_by is not null then 'running'
                    when j.line = '' then 'ready'
                    when j.line is null then 'scheduled'
                end,
                j.attempts, j.last_error
            )
            from app_jobs.jobs as j where j.id = v_id
        ),
        'gone'
    ) || (
        select coalesce(string_agg(format(' [%s %s %s]', e.lease, e.attempt, e.error_message), ''), '')
        from app_jobs.job_errors as e where e.job_id = v_id
    );
end;
$$;
select is(pg_temp.outcome(how, prepared, 25), outcome, concat_ws(' ', prepared, how))
from (
    values
    ('complete', null, 'gone'),
    ('fail', null, 'scheduled 1 no [1 1 no]'),
    ('fail for good', null, 'failed 1 no w [1 1 no]'),
    ('snooze', null, 'scheduled 0'),
    ('release', null, 'ready 0'),
    ('expire', null, 'ready 1 lease expired [1 1 lease expired]'),
    ('complete', 'cancelled', 'gone'),
    ('fail', 'cancelled', 'cancelled 1 why not w [1 1 no]'),
    ('fail for good', 'cancelled', 'cancelled 1 why not w [1 1 no]'),
    ('snooze', 'cancelled', 'cancelled 1 why not w'),
    ('release', 'cancelled', 'cancelled 1 why not w'),
    ('expire', 'cancelled', 'cancelled 1 why not w [1 1 lease expired]'),
    ('complete', 'superseded', 'gone'),
    ('fail', 'superseded', 'failed 1 no w [1 1 no]'),
    ('expire', 'superseded', 'failed 1 lease expired w [1 1 lease expired]'),
    ('snooze', 'superseded', 'scheduled 0'),
    ('release', 'superseded', 'ready 0')
) as c (how, prepared, outcome);
select is(pg_temp.outcome(how, null, 1), outcome, 'the last attempt: ' || how)
from (
    values
    ('complete', 'gone'),
    ('fail', 'failed 1 no w [1 1 no]'),
    ('expire', 'failed 1 lease expired w [1 1 lease expired]'),
    ('snooze', 'scheduled 0'),
    ('release', 'ready 0')
) as c (how, outcome);

-- what is kept of a failure is the task's keep_failed
insert into app_jobs.tasks (task_identifier, keep_failed) values ('t', '0');
select is(pg_temp.outcome('fail', null, 1), 'gone', 'nothing is kept, nor are its errors');
update app_jobs.tasks set keep_failed = '2 days';
select is(pg_temp.outcome('fail', null, 1), 'failed 1 no w [1 1 no]', 'kept');
select
    ok(
        keep_until - finished_at between interval '1 day 23:59:59' and interval '2 days',
        'for two days'
    )
from app_jobs.finished_jobs;
delete from app_jobs.tasks;
select
    is(
        pg_temp.outcome('fail', null, 1),
        'failed 1 no w [1 1 no]',
        'without a row of tasks it is kept'
    );
select
    ok(
        keep_until - finished_at between interval '29 days 23:59:59' and interval '30 days',
        'for thirty days'
    )
from app_jobs.finished_jobs;

-- the fence of a job never goes back
do $$
begin
    perform pg_temp.run_job();
    perform app_jobs.release_jobs('w');
    perform app_jobs.get_job('w');
    perform app_jobs.snooze_job('w', (app_jobs.find_job('k')).id, '0');
    perform app_jobs.get_job('w');
    perform app_jobs.fail_job('w', (app_jobs.find_job('k')).id, retry_in => '0');
    perform app_jobs.get_job('w');
end;
$$;
select is((app_jobs.find_job('k')).lease, 4, 'each claim has a lease of its own');
select is((app_jobs.find_job('k')).attempts, 2, 'of which two count');

-- a processing job, held with no expiry, is left alone
do $$
begin
    perform pg_temp.run_job();
    update app_jobs.jobs set lease_expires_at = null;
end;
$$;
select is_empty($$select app_jobs.release_jobs('w')$$, 'release_jobs() leaves it');
select is((app_jobs.tick()).expired, 0, 'tick() leaves it');
select is((app_jobs.find_job('k')).locked_by, 'w', 'it is still held');

select finish();
rollback;
