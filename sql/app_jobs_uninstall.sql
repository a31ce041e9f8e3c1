-- Remove app_jobs 0.1.0, however it was installed: psql -f app_jobs_uninstall.sql
-- Made by `make generate`: do not edit.
\set ON_ERROR_STOP on

begin;

-- the lock that Sqitch and the migrator take between deployers
do $$
begin
    perform pg_advisory_xact_lock(75474063);
end;
$$;

do $$
begin
    if to_regprocedure('app_jobs.version()') is null then
        raise exception 'app_jobs is not installed here, or not completely'
            using errcode = 'JQ091', hint = '`app-jobs revert` removes what it has deployed.';
    elsif app_jobs.version() <> '0.1.0' then
        raise exception 'app_jobs has version % here', app_jobs.version()
            using errcode = 'JQ091', hint = 'Take the uninstaller of that version.';
    end if;
end;
$$;

-- An extension's members become objects like any others, which their reverts can drop.
do $$
declare
    v_extension name;
    v_member text;
begin
    select e.extname into v_extension
    from pg_depend as d
    inner join pg_extension as e on d.refclassid = 'pg_extension'::regclass and d.refobjid = e.oid
    inner join pg_class as c on d.classid = 'pg_class'::regclass and d.objid = c.oid
    where d.deptype = 'e' and c.relnamespace = to_regnamespace('app_jobs')
    limit 1;
    if not found then
        return;
    end if;
    for v_member in
        select format('%s %s', o.type, o.identity)
        from pg_depend as d
        inner join pg_extension as e
            on d.refclassid = 'pg_extension'::regclass and d.refobjid = e.oid
        cross join pg_identify_object(d.classid, d.objid, d.objsubid) as o
        where
            d.deptype = 'e' and e.extname = v_extension
            -- types of rows and arrays go with what they belong to
            and not (d.classid = 'pg_type'::regclass and exists (
                select from pg_depend as i
                where i.classid = d.classid and i.objid = d.objid and i.deptype = 'i'
            ))
    loop
        execute format('alter extension %I drop %s', v_extension, v_member);
    end loop;
    execute format('drop extension %I', v_extension);
end;
$$;

-- Revert app_jobs:version from pg

set local lock_timeout = '5s';

-- With triggers in use or jobs unfinished, a change further down would refuse to go. So refuse here
-- already, with the last change of the plan: what is left must be a queue that works.
do $$
declare
    v_triggers text;
    v_jobs bigint;
    v_schedules bigint;
begin
    select string_agg(format('"%s" on table %s', t.tgname, t.tgrelid::regclass), ', ')
    into v_triggers
    from pg_trigger as t
    inner join pg_proc as p on p.oid = t.tgfoid
    inner join pg_class as c on c.oid = t.tgrelid
    where
        p.pronamespace = 'app_jobs'::regnamespace
        and c.relnamespace <> 'app_jobs'::regnamespace
        and t.tgparentid = 0;
    if v_triggers is not null then
        raise exception 'triggers call functions of app_jobs: %', v_triggers
            using errcode = 'JQ002', hint = 'Drop these triggers first.';
    end if;
    if coalesce(nullif(current_setting('app_jobs.allow_data_loss', true), ''), 'off')::boolean then
        return;
    end if;
    select count(*) into v_jobs from app_jobs.jobs;
    if v_jobs > 0 then
        raise exception '% unfinished jobs would be lost', v_jobs
            using errcode = 'JQ002',
                hint = 'Let workers finish them, or: set app_jobs.allow_data_loss = on '
                    '(for Sqitch: PGOPTIONS="-c app_jobs.allow_data_loss=on").';
    end if;
    select count(*) into v_schedules from app_jobs.scheduled_jobs;
    if v_schedules > 0 then
        raise exception '% schedules would be lost', v_schedules
            using errcode = 'JQ002',
                hint = 'Delete them, or: set app_jobs.allow_data_loss = on '
                    '(for Sqitch: PGOPTIONS="-c app_jobs.allow_data_loss=on").';
    end if;
end;
$$;

drop function app_jobs.version();

-- Revert app_jobs:progress from pg

set local lock_timeout = '5s';

drop function app_jobs.progress();
drop function app_jobs.set_progress(text, json);

alter table app_jobs.workers drop column progress;

-- Revert app_jobs:operator_actions from pg

set local lock_timeout = '5s';

drop function app_jobs.record_action(text, text, jsonb);
drop table app_jobs.operator_actions;

-- Revert app_jobs:redrive_jobs from pg

set local lock_timeout = '5s';

drop function app_jobs.redrive_jobs(
    text, text, uuid, text, timestamptz, timestamptz, bigint, integer, numeric, boolean
);

-- Revert app_jobs:lists from pg

set local lock_timeout = '5s';

drop function app_jobs.list_tasks();
drop function app_jobs.list_queues(text, integer);
drop function app_jobs.list_finished(
    text, text, uuid, text, text, timestamptz, timestamptz, bigint, integer
);
drop function app_jobs.list_jobs(text, text, uuid, text, text, bigint, integer);
drop function app_jobs.is_wanted(app_jobs.listed_job, text, text, uuid, text, text);
drop function app_jobs.check_list(text, text[], integer, integer);
drop type app_jobs.listed_job;

-- Revert app_jobs:vital_signs from pg

set local lock_timeout = '5s';

drop function app_jobs.vital_signs();

-- Revert app_jobs:doctor from pg

set local lock_timeout = '5s';

drop function app_jobs.doctor();
drop function app_jobs.diagnose_rights();
drop function app_jobs.diagnose_tables();
drop function app_jobs.diagnose_server(interval);
drop function app_jobs.diagnose_slots();
drop function app_jobs.diagnose_jobs();
drop type app_jobs.finding;

-- Revert app_jobs:explain_job from pg

set local lock_timeout = '5s';

drop function app_jobs.explain_job(bigint);
drop function app_jobs.explain_ready(app_jobs.jobs);
drop function app_jobs.explain_finished(bigint);
drop function app_jobs.explain_queue(app_jobs.jobs);
drop function app_jobs.first_line(text);
drop function app_jobs.at_time(timestamptz);
drop function app_jobs.in_words(interval);

-- Revert app_jobs:running_jobs from pg

set local lock_timeout = '5s';

drop function app_jobs.running_jobs();

-- Revert app_jobs:prune from pg

set local lock_timeout = '5s';

drop function app_jobs.prune(interval, integer);

-- Revert app_jobs:retry_jobs from pg

set local lock_timeout = '5s';

drop function app_jobs.retry_jobs(bigint[]);

-- Revert app_jobs:steer_jobs from pg

set local lock_timeout = '5s';

drop function app_jobs.reschedule_jobs(bigint[], timestamptz, integer, integer, integer);
drop function app_jobs.cancel_jobs(bigint[], text);
drop function app_jobs.permanently_fail_jobs(bigint[], text);
drop function app_jobs.complete_jobs(bigint[]);
drop function app_jobs.slots_for(integer);
drop function app_jobs.lock_jobs(bigint[], boolean);

-- Revert app_jobs:set_task from pg

set local lock_timeout = '5s';

drop function app_jobs.resume_task(text);
drop function app_jobs.pause_task(text);
drop function app_jobs.set_task(text, json);

-- Revert app_jobs:set_queue from pg

set local lock_timeout = '5s';

drop function app_jobs.set_queue_limit(text, integer, uuid);
drop function app_jobs.resume_queue(text, uuid);
drop function app_jobs.pause_queue(text, uuid);
drop function app_jobs.set_queue(text, uuid, integer, boolean);

-- Revert app_jobs:one_job from pg

set local lock_timeout = '5s';

drop function app_jobs.delete_job(bigint);
drop function app_jobs.move_job_to_failed(bigint, boolean);
drop function app_jobs.move_job_to_done(bigint, boolean);
drop function app_jobs.end_job(bigint, text, interval);
drop function app_jobs.move_job_to_processing(bigint);
drop function app_jobs.set_run_at(bigint, timestamptz);
drop function app_jobs.set_retry_after(bigint, interval);
drop function app_jobs.set_attributes(bigint, jsonb);
drop function app_jobs.job_details(bigint);
drop type app_jobs.job_detail;

-- Revert app_jobs:release_jobs from pg

set local lock_timeout = '5s';

drop function app_jobs.release_jobs(text);

-- Revert app_jobs:heartbeat from pg

set local lock_timeout = '5s';

drop function app_jobs.heartbeat(text, bigint[], interval);
drop function app_jobs.held_by(text);

-- Revert app_jobs:snooze_job from pg

set local lock_timeout = '5s';

drop function app_jobs.snooze_job(text, bigint, interval, integer);

-- Revert app_jobs:fail_jobs from pg

set local lock_timeout = '5s';

drop function app_jobs.fail_job(text, bigint, text, integer, interval, text, boolean);
drop function app_jobs.fail_jobs(text, json);

-- Revert app_jobs:complete_jobs from pg

set local lock_timeout = '5s';

drop function app_jobs.complete_job(text, bigint, integer, json);
drop function app_jobs.complete_jobs(text, bigint[], integer[], json[]);

-- Revert app_jobs:get_jobs from pg

set local lock_timeout = '5s';

drop function app_jobs.get_job(text, text[], interval);
drop function app_jobs.get_jobs(text, text[], interval, integer);

-- Revert app_jobs:tick from pg

set local lock_timeout = '5s';

drop function app_jobs.tick(interval);
drop function app_jobs.keep_house(integer);
drop function app_jobs.count_idle();
drop function app_jobs.prune_finished(integer);
drop function app_jobs.forget_finished(tid[]);
drop function app_jobs.sweep();
drop function app_jobs.move_queues(integer);
drop function app_jobs.end_expired_leases(integer);
drop function app_jobs.end_leases(tid[]);
drop function app_jobs.make_due_ready(text[], text[], integer);
drop function app_jobs.anything_due(timestamptz, integer);
drop function app_jobs.due_slots(text, timestamptz, integer);
drop sequence app_jobs.moved_to;
drop sequence app_jobs.pruned_to;
drop sequence app_jobs.swept_at;
drop sequence app_jobs.ticked_at;

-- Revert app_jobs:task_stats from pg

set local lock_timeout = '5s';

drop function app_jobs.depths(timestamptz, timestamptz, interval);
drop function app_jobs.task_stats(timestamptz, timestamptz, interval);
drop function app_jobs.whole_steps(timestamptz, timestamptz, interval);
drop function app_jobs.merge_stats(integer, integer);
drop function app_jobs.record_depths(timestamptz);
drop function app_jobs.record_stats(text, json);
drop function app_jobs.sum_stats(
    interval, tstzrange, tstzrange, tstzrange, bigint[]
);
drop function app_jobs.histogram_quantile(bigint[], double precision);
drop function app_jobs.histogram_bounds();
drop sequence app_jobs.stats_pruned_to;
drop sequence app_jobs.stats_merged_to;
drop table app_jobs.depth_figures;
drop table app_jobs.stat_reports;
drop table app_jobs.task_figures;

-- Revert app_jobs:metrics from pg

set local lock_timeout = '5s';

drop view app_jobs.metrics;
drop function app_jobs.metrics();

-- Revert app_jobs:run_schedules from pg

set local lock_timeout = '5s';

drop function app_jobs.release_scheduled_jobs(text, bigint[]);
drop function app_jobs.get_scheduled_job(text, text[]);
drop function app_jobs.run_scheduled_job(bigint, interval);
drop function app_jobs.run_due_schedules();
drop function app_jobs.fire_schedules(integer);
drop function app_jobs.job_spec(app_jobs.scheduled_jobs, timestamptz);
drop function app_jobs.due_times(app_jobs.scheduled_jobs, timestamptz);
drop function app_jobs.last_due(app_jobs.scheduled_jobs, timestamptz);
drop function app_jobs.next_schedule_at(timestamptz);
drop function app_jobs.schedule_slots(timestamptz);

-- Revert app_jobs:scheduled_jobs from pg

set local lock_timeout = '5s';

-- Before the look, so that nobody adds a schedule after it.
lock table app_jobs.scheduled_jobs in access exclusive mode;

do $$
declare
    v_schedules bigint;
begin
    if coalesce(nullif(current_setting('app_jobs.allow_data_loss', true), ''), 'off')::boolean then
        return;
    end if;
    select count(*) into v_schedules from app_jobs.scheduled_jobs;
    if v_schedules > 0 then
        raise exception '% schedules would be lost', v_schedules
            using errcode = 'JQ002',
                hint = 'Delete them, or: set app_jobs.allow_data_loss = on '
                    '(for Sqitch: PGOPTIONS="-c app_jobs.allow_data_loss=on").';
    end if;
end;
$$;

drop function app_jobs.list_scheduled_jobs(text);
drop function app_jobs.add_scheduled_job(
    uuid, text, json, json, text, text, integer, integer, text, text, jsonb, text
);
drop table app_jobs.scheduled_jobs;
drop function app_jobs.tg_place_schedule();

-- Revert app_jobs:schedule_times from pg

set local lock_timeout = '5s';

drop function app_jobs.preview_schedule(json, integer, timestamptz, text);
drop function app_jobs.next_run_at(json, timestamptz, text);
drop function app_jobs.check_schedule(json, text);
drop function app_jobs.next_time(app_jobs.parsed_schedule, timestamptz);
drop function app_jobs.next_step(app_jobs.parsed_schedule, timestamptz);
drop function app_jobs.next_match(app_jobs.parsed_schedule, timestamp);
drop function app_jobs.read_schedule(json, text);
drop function app_jobs.calendar_field(text, json, integer, integer, integer);
drop function app_jobs.cron_field(text, text, integer, integer, text[]);
drop function app_jobs.cron_number(text, text[], integer);
drop function app_jobs.read_every(json);
drop function app_jobs.read_moment(text, json, text);
drop function app_jobs.first_reading(timestamp, text);
drop function app_jobs.clock_change(text, timestamptz, timestamptz);
drop function app_jobs.check_time_zone(text, text);
drop function app_jobs.next_bit(bit varying, integer);
drop type app_jobs.parsed_schedule;

-- Revert app_jobs:cancel_job from pg

set local lock_timeout = '5s';

drop function app_jobs.cancel_job(text, uuid, text);
drop function app_jobs.cancel_locked(tid[], text);

-- Revert app_jobs:triggers from pg

set local lock_timeout = '5s';

drop function app_jobs.tg_add_jobs_with_rows();
drop function app_jobs.tg_add_job_with_fields();
drop function app_jobs.tg_add_job_with_row();
drop function app_jobs.tg_add_job_with_row_id();
drop function app_jobs.add_job_for_row(record, oid, text, text[], json);
drop function app_jobs.check_trigger(oid, text, text[], text, text, integer, integer, text);
drop function app_jobs.tenant_column(oid, text, text);
drop function app_jobs.column_type(oid, text, text, text);
drop function app_jobs.row_as_json(record, oid);
drop function app_jobs.field_as_json(record, oid, text);
drop function app_jobs.has_built_in_columns(oid);
drop function app_jobs.json_columns(oid, text);
drop function app_jobs.json_expression(oid, text);
drop function app_jobs.is_built_in(oid);

-- Revert app_jobs:add_jobs from pg

set local lock_timeout = '5s';

drop function app_jobs.add_jobs(
    text, json[], uuid, text, timestamptz, integer, integer, jsonb, interval
);
drop function app_jobs.add_jobs(json);
drop function app_jobs.insert_jobs(
    json, text, json[], uuid[], integer, text, timestamptz, integer, integer, jsonb,
    interval
);
drop function app_jobs.check_specs(json);
drop function app_jobs.check_spec(json);

-- Revert app_jobs:add_job from pg

set local lock_timeout = '5s';

drop function app_jobs.add_job(
    uuid, text, json, text, text, timestamptz, integer, integer, text, jsonb, interval
);
drop function app_jobs.finished_with_key(text, uuid);
drop function app_jobs.lock_key_holder(text, uuid);
drop function app_jobs.with_trace(jsonb);
drop function app_jobs.find_job(text, uuid);

-- Revert app_jobs:let_go from pg

set local lock_timeout = '5s';

drop function app_jobs.let_go(tid[], timestamptz[], text[], boolean[], boolean, boolean);
drop function app_jobs.end_jobs(tid[], text, text, interval);
drop function app_jobs.finish_jobs(tid[], text, text, text[], json[], interval);
drop function app_jobs.queues_left(tid[]);

-- Revert app_jobs:queues from pg

set local lock_timeout = '5s';

drop function app_jobs.advance_queues(text[], text[], boolean);
drop function app_jobs.take_seats(integer, text[], text[], app_jobs.place[]);
drop type app_jobs.seated;
drop function app_jobs.free_seats(text, integer);
drop function app_jobs.queues_at_most();

-- Revert app_jobs:lines from pg

set local lock_timeout = '5s';

drop function app_jobs.look(text, text[], text[], integer, app_jobs.place);
drop function app_jobs.lock_jobs(
    integer, text, text[], text, text, text[], app_jobs.place, app_jobs.place, integer, boolean
);
drop function app_jobs.only_slot(text, text[], integer);
drop function app_jobs.task_range(text[]);
drop type app_jobs.found;
drop type app_jobs.place;
drop function app_jobs.raise_bounds(integer, text);

-- Revert app_jobs:slots from pg

set local lock_timeout = '5s';

drop function app_jobs.turn_slots();
drop function app_jobs.close_slot(integer);
drop function app_jobs.note_arrivals(integer);
drop function app_jobs.enter_slot();
drop function app_jobs.find_first_slot();
drop function app_jobs.first_slot();
drop function app_jobs.seat_line(text);
drop table app_jobs.alarms;
drop table app_jobs.streams;
drop function app_jobs.lock_key(text, text);
drop table app_jobs.open_slots;
drop sequence app_jobs.activity;
drop sequence app_jobs.slot_first;
drop sequence app_jobs.slot_current;
drop sequence app_jobs.slot_number;

-- Revert app_jobs:counts from pg

set local lock_timeout = '5s';

drop function app_jobs.count_again(integer);
drop function app_jobs.forget_counts(integer[], text, text[], text);
drop function app_jobs.note_counts(app_jobs.slot_counts[]);
drop function app_jobs.waiting_in(integer);
drop function app_jobs.groups_at_most();
drop sequence app_jobs.counted_at;
drop sequence app_jobs.counted_to;
drop table app_jobs.totals;
drop table app_jobs.slot_counts;

-- Revert app_jobs:workers from pg

set local lock_timeout = '5s';

drop function app_jobs.idle_peers(text);
drop function app_jobs.set_worker_idle(text, boolean);
drop function app_jobs.register_worker(text, text, integer, text[]);
drop function app_jobs.wake_workers();
drop sequence app_jobs.went_busy;
drop sequence app_jobs.went_idle;
drop table app_jobs.workers;

-- Revert app_jobs:job_queues from pg

set local lock_timeout = '5s';

drop view app_jobs.job_queues;
drop table app_jobs.queue_settings;

-- Revert app_jobs:effects from pg

set local lock_timeout = '5s';

drop function app_jobs.forget_once(bigint, text, integer);
drop function app_jobs.finish_once(text, bigint, text, json, integer);
drop function app_jobs.begin_once(text, bigint, text, integer);
drop function app_jobs.hold_job(text, bigint, integer);
drop function app_jobs.check_effect(bigint, text);
drop table app_jobs.effects;

-- Revert app_jobs:finished_jobs from pg

set local lock_timeout = '5s';

drop table app_jobs.job_errors;
drop table app_jobs.finished_jobs;

-- Revert app_jobs:jobs from pg

set local lock_timeout = '5s';

-- Before the look, so that nobody adds a job after it.
lock table app_jobs.jobs in access exclusive mode;

do $$
declare
    v_jobs bigint;
begin
    if coalesce(nullif(current_setting('app_jobs.allow_data_loss', true), ''), 'off')::boolean then
        return;
    end if;
    select count(*) into v_jobs from app_jobs.jobs;
    if v_jobs > 0 then
        raise exception '% unfinished jobs would be lost', v_jobs
            using errcode = 'JQ002',
                hint = 'Let workers finish them, or: set app_jobs.allow_data_loss = on '
                    '(for Sqitch: PGOPTIONS="-c app_jobs.allow_data_loss=on").';
    end if;
end;
$$;

drop table app_jobs.jobs;
drop function app_jobs.queue_line(uuid, text);

-- Revert app_jobs:tasks from pg

set local lock_timeout = '5s';

drop function app_jobs.retry_delay(text, integer);
drop table app_jobs.tasks;
drop function app_jobs.backoff_delay(json, integer);

-- Revert app_jobs:arguments from pg

set local lock_timeout = '5s';

drop domain app_jobs.attempt_limit;
drop domain app_jobs.lease_term;
drop domain app_jobs.due_time;
drop domain app_jobs.job_attributes;
drop domain app_jobs.job_payload;
drop domain app_jobs.queue_name;
drop domain app_jobs.task_name;
drop function app_jobs.check_job(text, text, text, integer, interval, timestamptz);
drop function app_jobs.check_objects(text, json, text);
drop function app_jobs.check_sizes(json, jsonb);
drop function app_jobs.check_time(text, timestamptz);
drop function app_jobs.check_delay(text, interval);
drop function app_jobs.check_positive(text, interval);
drop function app_jobs.check_length(text, text, integer);
drop function app_jobs.check_not_null(text, boolean, text);
drop function app_jobs.check_worker_id(text);

-- Revert app_jobs:error_codes from pg

set local lock_timeout = '5s';

drop table app_jobs.error_codes;

-- Revert app_jobs:roles from pg

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

-- Revert app_jobs:schema from pg

set local lock_timeout = '5s';

drop schema app_jobs;

do $$
begin
    if to_regclass('sqitch.changes') is not null then
        insert into sqitch.events (
            event, change_id, change, project, note, requires, planned_at, planner_name,
            planner_email, committer_name, committer_email
        )
        select
            'revert', c.change_id, c.change, c.project, c.note,
            array(
                select d.dependency from sqitch.dependencies as d
                where d.change_id = c.change_id
            ),
            c.planned_at, c.planner_name, c.planner_email, current_user,
            current_user || '@localhost'
        from sqitch.changes as c
        where c.project = 'app_jobs';
        delete from sqitch.tags as t where t.project = 'app_jobs';
        delete from sqitch.dependencies as d
        where d.change_id in (
            select c.change_id from sqitch.changes as c where c.project = 'app_jobs'
        );
        delete from sqitch.changes as c where c.project = 'app_jobs';
    end if;
end;
$$;

commit;
