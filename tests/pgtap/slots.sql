begin;
\ir include/helpers.sql
select no_plan();

select isnt(
    app_jobs.lock_key('slot', '1'), app_jobs.lock_key('queue', '1'), 'kinds of locks do not meet'
);
select isnt(app_jobs.lock_key('slot', '1'), app_jobs.lock_key('slot', '2'), 'nor do slots');

-- enter_slot
select is(
    app_jobs.enter_slot(), pg_sequence_last_value('app_jobs.slot_current')::integer,
    'the current slot is entered'
);
select is(
    array(
        select l.mode
        from pg_locks as l
        where
            l.locktype = 'advisory'
            and l.pid = pg_backend_pid()
            and (l.classid::bigint << 32 | l.objid::bigint)
            = app_jobs.lock_key('slot', pg_sequence_last_value('app_jobs.slot_current')::text)
    ),
    '{ShareLock}'::text[],
    'and locked, shared'
);

-- close_slot: what is left in slot 0, older than any other
select is(setval('app_jobs.activity', 0), 0::bigint, 'no arrivals');
insert into app_jobs.open_slots (slot) values (0);
insert into app_jobs.jobs (slot, task_identifier, line, priority, run_at) values
(0, 'a', '', 5, '2020-01-02'),
(0, 'a', '', 6, '2020-01-01'),
(0, 'b', '', 7, '2020-01-03'),
(0, 'b', ':q', 8, '2020-01-04');
insert into app_jobs.jobs (slot, task_identifier, run_at) values
(0, 'a', '2120-01-02'), (0, 'b', '2120-01-01');
insert into app_jobs.jobs (
    slot, task_identifier, locked_by, locked_at, lease_expires_at, queue_name, seat
) values
(0, 'a', 'w', now(), '2121-01-02', 'q', 1), (0, 'a', 'w', now(), '2121-01-01', null, null);
insert into app_jobs.streams values (0, '', 'stale', 0, now(), 0);
insert into app_jobs.alarms values (0, 'run', now());
select cmp_ok(app_jobs.turn_slots(), '>=', 1, 'a slot that nobody is in is closed');
select is_empty('select from app_jobs.open_slots where slot = 0', 'it is not open any more');
select results_eq(
    $$select line, task_identifier, priority, run_at from app_jobs.streams where slot = 0
    order by line, task_identifier$$,
    $$values
        ('' collate "C", 'a' collate "C", 5, timestamptz '2020-01-01'),
        ('', 'b', 7, '2020-01-03'),
        ('#:q', '', 0, '-infinity'),
        (':q', 'b', 8, '2020-01-04')$$,
    'its streams are lower bounds of what is left, seats included'
);
select results_eq(
    'select kind, due_at from app_jobs.alarms where slot = 0 order by kind',
    $$values ('lease' collate "C", timestamptz '2121-01-01'), ('run', '2120-01-01')$$,
    'its alarms are the first things due'
);

-- turn_slots: a new slot after enough arrivals
select is(setval('app_jobs.activity', 999), 999::bigint, '999 arrivals');
select is(app_jobs.turn_slots(), 0, 'nothing to close');
select is_empty(
    'select from app_jobs.open_slots where opened_by = pg_current_xact_id()', 'nothing to open'
);
do $$
begin
    perform app_jobs.note_arrivals(1);
    perform app_jobs.turn_slots();
    perform app_jobs.turn_slots();
end;
$$;
select is(
    (
        select count(*) from app_jobs.open_slots
        where opened_by = pg_current_xact_id()
    ), 1::bigint,
    'after a thousand arrivals one is opened, once'
);
select isnt_empty(
    $$select from app_jobs.open_slots
    where slot = pg_sequence_last_value('app_jobs.slot_current') and opened_by <> pg_current_xact_id()$$,
    'it is not made current before its row is committed'
);

select finish();
rollback;
