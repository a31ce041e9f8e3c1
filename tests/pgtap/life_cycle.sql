-- The life cycle as a table: for each function that takes a job, what comes of a job in each state.
begin;
\ir include/helpers.sql
select no_plan();

select from app_jobs.set_task('t', '{"keep_completed": "1 day"}');

-- A job with the key k, in a state; if it is held, then by the worker w.
create function pg_temp.prepare(state text) returns bigint
language plpgsql
as $$
declare
    v_id bigint := 0;
begin
    case prepare.state
        when 'unknown' then
            return v_id;
        when 'scheduled' then
            perform app_jobs.add_job(identifier => 't', job_key => 'k', run_at => '2100-01-01');
        when 'parked' then
            perform app_jobs.add_job(identifier => 't', queue_name => 'q');
            perform app_jobs.add_job(identifier => 't', queue_name => 'q', job_key => 'k');
            perform app_jobs.get_jobs('another', job_limit => 2);
        else
            perform app_jobs.add_job(identifier => 't', job_key => 'k');
    end case;
    v_id := (app_jobs.find_job('k')).id;
    if prepare.state not in ('ready', 'scheduled', 'parked') then
        perform app_jobs.get_job('w', job_expiry => '1 h');
    end if;
    case prepare.state
        when 'marked' then perform app_jobs.cancel_job('k');
        when 'expired' then
            update app_jobs.jobs set lease_expires_at = now() - interval '1 s' where id = v_id;
            -- a claim looks for such jobs once a second
            perform setval('app_jobs.ticked_at', 0);
        when 'processing' then update app_jobs.jobs set lease_expires_at = null where id = v_id;
        when 'completed' then perform app_jobs.complete_job('w', v_id);
        when 'failed' then perform app_jobs.fail_job('w', v_id, permanent => true);
        when 'cancelled' then
            perform app_jobs.cancel_job('k');
            perform app_jobs.release_jobs('w');
        else null;
    end case;
    return v_id;
end;
$$;

create function pg_temp.state_of(job_id bigint) returns text
language sql
as $$
    select coalesce(
        (
            select case
                when j.line = '' then 'ready'
                when j.line > '' then 'parked'
                when j.locked_by is null then 'scheduled'
                when j.lease_expires_at is null then 'processing'
                when j.cancel_reason is not null then 'marked'
                when j.lease_expires_at < now() then 'expired'
                else 'active'
            end
            from app_jobs.jobs as j where j.id = state_of.job_id
        ),
        (select f.state from app_jobs.finished_jobs as f where f.id = state_of.job_id),
        'unknown'
    )
$$;

-- What comes of it: the new state; "stays"; "nothing", if a null row, no row or false is returned;
-- "anew", if there is now another job under the key; or the SQLSTATE.
create function pg_temp.outcome(call text, state text) returns text
language plpgsql
as $$
declare
    v_id bigint;
    v_answered boolean;
    v_after text;
    v_outcome text;
begin
    v_id := pg_temp.prepare(outcome.state);
    if pg_temp.state_of(v_id) <> outcome.state then
        return format('not prepared, but %s', pg_temp.state_of(v_id));
    end if;
    begin
        execute format(
            'select not (a is null) and a::text <> ''false'' from app_jobs.%s as a',
            replace(outcome.call, '$', v_id::text)
        ) into v_answered;
        v_after := pg_temp.state_of(v_id);
        v_outcome := case
            when (app_jobs.find_job('k')).id <> v_id then 'anew'
            when v_after <> outcome.state then v_after
            when v_answered then 'stays'
            else 'nothing'
        end;
        raise exception using errcode = 'P0001', message = v_outcome;
    exception
        when raise_exception then
            get stacked diagnostics v_outcome = message_text;
        when others then
            get stacked diagnostics v_outcome = returned_sqlstate;
    end;
    delete from app_jobs.jobs;
    delete from app_jobs.finished_jobs;
    delete from app_jobs.job_errors;
    return v_outcome;
end;
$$;

create temporary table states (state text, n integer) on commit drop;
insert into states (state, n)
select
    s.state,
    s.n
from unnest(array[
    'ready', 'scheduled', 'parked', 'active', 'marked', 'expired', 'processing', 'completed',
    'failed', 'cancelled', 'unknown'
]) with ordinality as s (state, n);

-- The table. $ is the job's id. "marked" is a running job that is to be cancelled, "expired" one
-- whose lease is over. What is not named: nothing.
create temporary table life_cycle (call text, outcomes text) on commit drop;
insert into life_cycle (call, outcomes) values
-- producers
(
    'find_job(''k'')',
    'ready scheduled parked active marked expired processing: stays'
),
(
    'cancel_job(''k'')',
    'ready scheduled parked processing: cancelled; active expired: marked; marked: stays'
),
(
    'add_job(identifier => ''t'', job_key => ''k'', job_key_mode => ''replace'')',
    'ready: stays; scheduled parked: ready; '
    'active marked expired processing completed failed cancelled unknown: anew'
),
(
    'add_job(identifier => ''t'', job_key => ''k'', job_key_mode => ''preserve_run_at'')',
    'ready scheduled: stays; parked: ready; '
    'active marked expired processing completed failed cancelled unknown: anew'
),
(
    'add_job(identifier => ''t'', job_key => ''k'', job_key_mode => ''keep'')',
    'ready scheduled parked active marked expired processing: stays; '
    'completed failed cancelled unknown: anew'
),
(
    'add_job(identifier => ''t'', job_key => ''k'', job_key_mode => ''once'')',
    'ready scheduled parked active marked expired processing completed failed cancelled: stays; '
    'unknown: anew'
),
-- workers: the holder
('get_job(''w'', array[''t''])', 'ready expired: active'),
('complete_job(''w'', $)', 'active marked expired processing: completed'),
('complete_jobs(''w'', array[$])', 'active marked expired processing: completed'),
('fail_job(''w'', $)', 'active expired processing: scheduled; marked: cancelled'),
(
    'fail_job(''w'', $, permanent => true)',
    'active expired processing: failed; marked: cancelled'
),
(
    'fail_jobs(''w'', ''[{"job_id": $, "retry_in": "0"}]'')',
    'active expired processing: ready; marked: cancelled'
),
(
    'snooze_job(''w'', $, ''1 h'')',
    'active expired processing: scheduled; marked: cancelled'
),
('heartbeat(''w'', array[$])', 'active processing: stays; expired: active'),
('release_jobs(''w'')', 'active expired: ready; marked: cancelled'),
-- workers: another one, or one whose lease is not the job's
('get_jobs(''another'', array[''t''])', 'ready expired: active'),
('complete_job(''another'', $)', ''),
('complete_job(''w'', $, 7)', ''),
('complete_jobs(''another'', array[$])', ''),
('fail_job(''another'', $)', ''),
('fail_jobs(''w'', ''[{"job_id": $, "lease": 7}]'')', ''),
('snooze_job(''w'', $, ''1 h'', 7)', ''),
('heartbeat(''another'', array[$])', ''),
-- housekeeping
(
    'tick()',
    'ready scheduled parked active marked processing completed failed cancelled unknown: stays; '
    'expired: ready'
),
-- operators
('complete_jobs(array[$])', 'ready scheduled parked processing: completed'),
('permanently_fail_jobs(array[$])', 'ready scheduled parked processing: failed'),
(
    'cancel_jobs(array[$])',
    'ready scheduled parked processing: cancelled; active expired: marked; marked: stays'
),
('reschedule_jobs(array[$], priority => 1)', 'ready scheduled: stays; parked: ready'),
('reschedule_jobs(array[$], ''2100-01-01'')', 'ready parked: scheduled; scheduled: stays'),
('retry_jobs(array[$])', 'completed failed cancelled: ready'),
(
    'explain_job($)',
    'ready scheduled parked active marked expired processing completed failed cancelled unknown: '
    'stays'
),
-- applications that move their jobs by id
(
    'job_details($)',
    'ready scheduled parked active marked expired processing completed failed cancelled: stays'
),
(
    'set_attributes($, ''{"a": 1}'')',
    'ready scheduled parked active marked expired processing: stays'
),
(
    'set_retry_after($, ''1 h'')',
    'ready scheduled parked active marked processing: stays; expired: active'
),
(
    'set_run_at($, ''2100-01-01'')',
    'ready parked: scheduled; scheduled active marked expired: stays'
),
('set_run_at($, now())', 'scheduled parked: ready; ready active marked expired: stays'),
('move_job_to_processing($)', 'active expired: processing; processing: stays'),
(
    'move_job_to_done($)',
    'ready scheduled parked active marked expired processing: completed'
),
(
    'move_job_to_done($, delete_on_complete => true)',
    'ready scheduled parked active marked expired processing: unknown'
),
(
    'move_job_to_failed($)',
    'ready scheduled parked active marked expired processing: failed'
),
(
    'move_job_to_failed($, delete_on_fail => true)',
    'ready scheduled parked active marked expired processing: unknown'
),
(
    'delete_job($)',
    'ready scheduled parked active marked expired processing completed failed cancelled: unknown'
),
-- effects
('hold_job(''w'', $)', 'active marked expired processing: stays'),
(
    'begin_once(''w'', $, ''effect'')',
    'active marked expired processing: stays; ready scheduled parked: JQ002; '
    'completed failed cancelled unknown: JQ001'
),
(
    'finish_once(''w'', $, ''not begun'')',
    'ready scheduled parked active marked expired processing: JQ002; '
    'completed failed cancelled unknown: JQ001'
),
('forget_once($, ''not begun'')', '');

select
    is(
        pg_temp.outcome(l.call, s.state),
        coalesce((
            select split_part(c.clause, ': ', 2)
            from unnest(string_to_array(l.outcomes, '; ')) as c (clause)
            where s.state = any(string_to_array(split_part(c.clause, ': ', 1), ' '))
        ), 'nothing'),
        format('%s: %s', s.state, l.call)
    )
from life_cycle as l
cross join states as s
order by l.call, s.n;

select is_empty(
    $$select p.proname
    from pg_proc as p
    where
        p.pronamespace = 'app_jobs'::regnamespace
        and p.proargnames && array['job_id', 'job_ids', 'job_key', 'finished_job_ids']
        and has_function_privilege('app_jobs_operator', p.oid, 'execute')
        -- whose key names a schedule
        and p.proname <> 'add_scheduled_job'
        and p.proname not in (select split_part(l.call, '(', 1) from life_cycle as l)$$,
    'each function that takes a job stands in the table'
);

select finish();
rollback;
