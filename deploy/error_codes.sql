-- Deploy app_jobs:error_codes to pg
-- requires: roles

begin;

set local lock_timeout = '5s';

create table app_jobs.error_codes (
    sqlstate text not null,
    condition text not null,
    meaning text not null,
    constraint error_codes_pkey primary key (sqlstate),
    constraint error_codes_sqlstate_form check (sqlstate ~ '^[0-9A-Z]{5}$')
);

insert into app_jobs.error_codes (sqlstate, condition, meaning) values
('22004', 'null_value_not_allowed', 'an argument is null where none may be'),
('22023', 'invalid_parameter_value', 'an argument has a value outside its range'),
('42501', 'insufficient_privilege', 'the caller has no right to this function'),
('55P03', 'lock_not_available', 'another program holds an advisory lock of app_jobs'),
('JQ001', 'unknown_job', 'no job, or no schedule, has this id'),
('JQ002', 'not_supported_now', 'not supported in this state or at this isolation level'),
('JQ003', 'effect_in_doubt', 'a side effect was begun and never finished: only a person can know'),
('JQ004', 'already_scheduled', 'the last job of this schedule still waits or runs'),
('JQ005', 'key_in_use', 'another live job has this key'),
('JQ090', 'broken_line', 'a sequence of the ready line has no value: call app_jobs.sweep()'),
('JQ091', 'foreign_schema', 'a schema of this name exists and is not ours');

grant select on app_jobs.error_codes
to app_jobs_producer, app_jobs_worker, app_jobs_operator, app_jobs_monitor;

comment on table app_jobs.error_codes is
'Every SQLSTATE that a function of this schema raises on purpose.';
comment on column app_jobs.error_codes.sqlstate is 'Five characters, as in GET STACKED DIAGNOSTICS … RETURNED_SQLSTATE.';
comment on column app_jobs.error_codes.condition is 'Its name: PostgreSQL''s own, or ours for class JQ.';
comment on column app_jobs.error_codes.meaning is 'What went wrong, in one line.';

commit;
