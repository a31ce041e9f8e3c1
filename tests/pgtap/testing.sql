begin;
\ir include/helpers.sql
\ir include/testing.sql
select no_plan();

create table pg_temp.mails (recipient text);
create function pg_temp.send(payload json) returns void
language sql
as $$
    insert into pg_temp.mails values (send.payload ->> 'to')
$$;
create function pg_temp.refuse(payload json) returns void
language plpgsql
as $$
begin
    raise exception 'no route';
end;
$$;

select pg_temp.isnt_enqueued('send');
select from app_jobs.add_job(identifier => 'send', payload => '{"to":  "ada"}');
select pg_temp.is_enqueued('send');
select pg_temp.is_enqueued('send', '{"to": "ada"}', 'with its payload');
select pg_temp.isnt_enqueued('send', '{"to": "bob"}', 'with no other');
select pg_temp.isnt_enqueued('other');
select c.line
from check_test(
    pg_temp.is_enqueued('send', '{}', 'with another'), false, 'a test that fails', 'with another',
    'there are: send {"to":  "ada"}'
) as c (line);

select is(pg_temp.drain('send', 'pg_temp.send(json)'), 1, 'one run');
select results_eq('table pg_temp.mails', $$values ('ada')$$, 'by the function');
select is_empty('select from app_jobs.jobs', 'and the job is done');

select from app_jobs.add_job(identifier => 'send', run_at => now() + interval '1 h');
select from app_jobs.add_job(identifier => 'other', run_at => now() + interval '1 h');
select is(pg_temp.drain('send', 'pg_temp.send(json)'), 0, 'not before its time');
select is(pg_temp.make_due('send'), 1, 'its time has come');
select is(pg_temp.drain('send', 'pg_temp.refuse(json)'), 1, 'a run that fails');
select is((pg_temp.enqueued('send')).last_error, 'no route', 'is told, and waits for its retry');
select is(pg_temp.drain('send', 'pg_temp.send(json)'), 0, 'which is not yet due');
select is(pg_temp.make_due(), 2, 'retries and others');

select is((app_jobs.get_job('dead', array['send'])).attempts, 2, 'a worker');
select is(pg_temp.expire_leases('other'), 0, 'holds nothing else');
select is(pg_temp.expire_leases(), 1, 'and dies');
select is((app_jobs.get_job('next', array['send'])).attempts, 3, 'so another one gets its job');

select from app_jobs.add_scheduled_job(
    identifier => 'yearly', schedule_info => '{"rule": "@yearly"}'
);
select is(pg_temp.make_due('yearly'), 1, 'the year is over');
select pg_temp.is_enqueued('yearly');

select finish();
rollback;
