-- Sign-up with psql: the user and the job are committed together, or neither is.
--
-- psql -v email=ada@example.org -f signup_psql.sql
\set ON_ERROR_STOP on
begin;
select id as job from app_jobs.add_job(
    identifier => 'send-welcome',
    payload => json_build_object('email', :'email')
);
insert into users (email) values (:'email');
commit;
