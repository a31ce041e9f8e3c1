begin;
\ir include/helpers.sql
select no_plan();

select set_has(
    'select sqlstate from app_jobs.error_codes',
    $$values
        ('22004'), ('22023'), ('42501'), ('55P03'),
        ('JQ001'), ('JQ002'), ('JQ003'), ('JQ004'), ('JQ005'), ('JQ091')$$,
    'the contract''s codes are there'
);
select is_empty(
    $$select e.sqlstate from app_jobs.error_codes as e
    where e.condition !~ '^[a-z_]+$' or e.meaning = ''$$,
    'each has a name and a meaning'
);
select throws_ok(
    $$insert into app_jobs.error_codes values ('JQ1', 'x', 'x')$$, '23514', null,
    'a code has five characters'
);
select throws_ok(
    $$insert into app_jobs.error_codes values ('JQ001', 'x', 'x')$$, '23505', null,
    'a code stands here once'
);
select is(
    pg_temp.callers('select * from app_jobs.error_codes'), 'producer worker operator monitor',
    'who may read them'
);

select finish();
rollback;
