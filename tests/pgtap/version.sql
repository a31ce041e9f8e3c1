begin;
\ir include/helpers.sql
select no_plan();

select matches(app_jobs.version(), '^\d+\.\d+\.\d+$', 'major.minor.patch');
select is(
    pg_temp.callers('select app_jobs.version()'), 'producer worker operator monitor', 'who may ask'
);

select finish();
rollback;
