begin;
\ir include/helpers.sql
select no_plan();

-- The payload is the job's name here. An expiry of leases is that of their row, backdated.
create function pg_temp.add(
    name text, queue text default 'q', priority integer default 0
) returns void
language sql
as $$
    select from app_jobs.add_job(
        identifier => 't', payload => to_json(name), queue_name => queue, priority => priority
    )
$$;
create function pg_temp.claim(worker text, job_limit integer default 10) returns text
language sql
as $$
    select string_agg(j.payload #>> '{}', ' ') from app_jobs.get_jobs(worker, job_limit => job_limit) as j
$$;
create function pg_temp.id(name text) returns bigint
language sql
as $$
    select j.id from app_jobs.jobs as j where j.payload #>> '{}' = name
$$;

-- one after the other, best first
do $$
begin
    perform pg_temp.add(name) from unnest(array['a', 'b', 'c', 'd', 'e', 'f']) as n(name);
    perform pg_temp.add('urgent', priority => -1);
    perform pg_temp.add('free', null, 9);
end;
$$;
select is(pg_temp.claim('w1'), 'urgent free', 'one of the queue, and what has no queue');
select is(pg_temp.claim('w2'), null, 'nothing else while it runs');
select is(
    (
        select count(*) from app_jobs.jobs
        where line = ':q'
    ), 6::bigint,
    'those that were met are parked'
);
select isnt(app_jobs.complete_job('w1', pg_temp.id('urgent')), null, 'completed');
select is(pg_temp.claim('w2'), 'a', 'complete_job() lets the next one in');
select isnt(app_jobs.fail_job('w2', pg_temp.id('a'), 'no'), null, 'failed');
select is(
    pg_temp.claim('w2'), 'b', 'a job that waits for its retry does not hold up those behind it'
);
select isnt(app_jobs.snooze_job('w2', pg_temp.id('b'), '1 h'), null, 'snoozed');
select is(pg_temp.claim('w2'), 'c', 'nor does a snoozed one');
select is(
    array(select app_jobs.release_jobs('w2')), array[pg_temp.id('c')], 'released'
);
select is(pg_temp.claim('w3'), 'c', 'a released job is first again');
update app_jobs.jobs set lease_expires_at = clock_timestamp() - interval '1 s'
where locked_by = 'w3';
select isnt(app_jobs.tick(), null, 'its lease ends');
select is(pg_temp.claim('w4'), 'c', 'and it is first once more');
select is(pg_temp.claim('w5'), null, 'alone');
update app_jobs.jobs set max_attempts = attempts
where locked_by = 'w4';
select isnt(app_jobs.fail_job('w4', pg_temp.id('c')), null, 'failed for good');
select is(pg_temp.claim('w4'), 'd', 'a dead job frees its seat');
update app_jobs.jobs set key = 'd'
where payload #>> '{}' = 'd';
select isnt(app_jobs.cancel_job('d'), null, 'cancelled while it runs');
select is(pg_temp.claim('w5'), null, 'it keeps its seat until it ends');
select isnt(app_jobs.fail_job('w4', pg_temp.id('d')), null, 'it ends');
select is(pg_temp.claim('w5'), 'e', 'and the next one comes');

-- a better one that arrives later goes before those that are parked; a worse one does not
do $$
begin
    perform pg_temp.add('better', priority => -5);
    perform pg_temp.add('worse', priority => 5);
end;
$$;
select is(pg_temp.claim('w6'), null, 'they wait, too');
select isnt(app_jobs.complete_job('w5', pg_temp.id('e')), null, 'the seat is free');
select is(pg_temp.claim('w6'), 'better', 'the better one first');
do $$
begin
    perform app_jobs.complete_job('w6', pg_temp.id('better'));
    perform pg_temp.add('latest', priority => -9);
end;
$$;
select is(pg_temp.claim('w6'), 'latest', 'also if it has never been parked');
select isnt(app_jobs.complete_job('w6', pg_temp.id('latest')), null, 'done');
select is(pg_temp.claim('w6'), 'f', 'then the parked ones in their order');
select isnt(app_jobs.complete_job('w6', pg_temp.id('f')), null, 'done');
select is(pg_temp.claim('w6'), 'worse', 'to the last');
select isnt(app_jobs.complete_job('w6', pg_temp.id('worse')), null, 'done');

-- max_running
insert into app_jobs.queue_settings (line, queue_name, max_running) values (':three', 'three', 3);
do $$
begin
    perform pg_temp.add('3' || name, 'three') from unnest(array['a', 'b', 'c', 'd', 'e', 'f']) as n(name);
end;
$$;
select is(pg_temp.claim('w1', 2), '3a 3b', 'two at once');
select is(pg_temp.claim('w1', 2), '3c', 'then one: three in all');
select set_eq(
    $$select seat from app_jobs.jobs where queue_name = 'three' and seat is not null$$,
    array[1, 2, 3],
    'each on a seat of its own'
);
update app_jobs.queue_settings set max_running = 1
where line = ':three';
select isnt(
    app_jobs.complete_job('w1', pg_temp.id('3a')), null, 'one ends after the limit went down'
);
select is(pg_temp.claim('w2'), null, 'two still run: nobody comes in');
select isnt(app_jobs.complete_job('w1', pg_temp.id('3b')), null, 'the second ends');
select is(pg_temp.claim('w2'), null, 'one still runs: nobody comes in');
select isnt(app_jobs.complete_job('w1', pg_temp.id('3c')), null, 'the last one ends');
select is(pg_temp.claim('w2'), '3d', 'now one may run');
update app_jobs.queue_settings set max_running = 3
where line = ':three';
select is((app_jobs.tick()).moved, 2, 'tick() fills seats that a higher limit has added');
select is(pg_temp.claim('w2'), '3e 3f', 'three run');
select is(
    (select count(*) from app_jobs.complete_jobs('w2', array(
        select j.id from app_jobs.jobs as j
        where j.queue_name = 'three'
    ))),
    3::bigint, 'and end in one call'
);

-- a paused queue
insert into app_jobs.queue_settings (line, queue_name, paused) values (':held', 'held', true);
do $$
begin
    perform pg_temp.add('h1', 'held');
    perform pg_temp.add('h2', 'held');
end;
$$;
select is(pg_temp.claim('w1'), null, 'no job of a paused queue is claimed');
update app_jobs.queue_settings set paused = false
where line = ':held';
select is((app_jobs.tick()).moved, 1, 'once it goes on tick() makes the first one ready');
select is(pg_temp.claim('w1'), 'h1', 'and it is claimed');
update app_jobs.queue_settings set paused = true
where line = ':held';
select isnt(
    app_jobs.complete_job('w1', pg_temp.id('h1')), null, 'paused again, the running job ends'
);
select is(pg_temp.claim('w1'), null, 'and the next one stays');
delete from app_jobs.queue_settings
where line = ':held';
select is((app_jobs.tick()).moved, 1, 'without settings it is a serial queue');
select is(pg_temp.claim('w1'), 'h2', 'that goes on');

-- the same name under two tenants is two queues
select
from app_jobs.add_job('00000000-0000-0000-0000-00000000000a', 't', '"ta"', queue_name => 'held');
select
from app_jobs.add_job('00000000-0000-0000-0000-00000000000b', 't', '"tb"', queue_name => 'held');
select is(pg_temp.claim('w2'), 'ta tb', 'tenants do not wait for each other');

-- a task that nobody serves must not keep those behind it
select from app_jobs.add_job(identifier => 't', payload => '"m1"', queue_name => 'mixed');
select from app_jobs.add_job(identifier => 'orphan', payload => '"m2"', queue_name => 'mixed');
select from app_jobs.add_job(identifier => 't', payload => '"m3"', queue_name => 'mixed');
select is(
    (select j.payload #>> '{}' from app_jobs.get_job('w7', '{t}') as j),
    'm1',
    'a worker of t takes the first'
);
select is((app_jobs.get_job('w8')).id, null, 'the others are parked');
select isnt(app_jobs.complete_job('w7', pg_temp.id('m1')), null, 'it ends');
select is(
    (select j.payload #>> '{}' from app_jobs.get_job('w7', '{t}') as j), 'm3',
    'the worker of t gets the next one of t'
);
select is((app_jobs.get_job('w8', '{orphan}')).id, null, 'the other one waits for the seat');
select isnt(app_jobs.complete_job('w7', pg_temp.id('m3')), null, 'the seat is free');
select is(
    (select j.payload #>> '{}' from app_jobs.get_job('w8', '{orphan}') as j),
    'm2',
    'and its turn comes'
);

-- a paused task
do $$
begin
    insert into app_jobs.tasks (task_identifier, paused) values ('halted', true);
    perform app_jobs.add_job(identifier => 'halted', payload => '"p1"', queue_name => 'p');
    perform app_jobs.add_job(identifier => 't', payload => '"p2"', queue_name => 'p');
end;
$$;
select is(pg_temp.claim('w9'), 'p2', 'a job of a paused task does not hold up its queue');

-- a closed slot remembers who sits
insert into app_jobs.queue_settings (line, queue_name) values (':closed', 'closed');
insert into app_jobs.jobs (
    task_identifier, payload, slot, queue_name, seat, locked_by, locked_at, lease_expires_at
)
values ('t', '"sitting"', -1, 'closed', 1, 'w1', now(), now() + interval '1 h');
do $$
begin
    perform app_jobs.close_slot(-1);
    perform pg_temp.add('standing', 'closed');
end;
$$;
select is(pg_temp.claim('w9'), null, 'a seat that is taken in a closed slot is taken');
select isnt(app_jobs.complete_job('w1', pg_temp.id('sitting')), null, 'it is given up');
select is(pg_temp.claim('w9'), 'standing', 'and taken by the next one');

-- nothing is stuck if a seat was freed by nobody: a lost job, say
do $$
begin
    perform pg_temp.add('l1', 'lost');
    perform pg_temp.add('l2', 'lost');
    perform pg_temp.claim('w1');
    delete from app_jobs.jobs where payload #>> '{}' = 'l1';
end;
$$;
select is((app_jobs.tick()).moved, 1, 'tick() finds a queue that stands still');
select is(pg_temp.claim('w1'), 'l2', 'and moves it on');

select
    is(
        pg_temp.callers($$select app_jobs.free_seats(':q', 1)$$), '', 'nobody may call free_seats()'
    );
select is(app_jobs.queues_at_most(), 1000, 'a call takes a thousand locks of queues');

select finish();
rollback;
