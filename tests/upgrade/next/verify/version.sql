-- Verify app_jobs:version on pg

begin;

select set_config('plpgsql.check_asserts', 'on', true);

do $$
begin
    assert app_jobs.version() = 'NEXT', format('the version is %s', app_jobs.version());
end;
$$;

rollback;
