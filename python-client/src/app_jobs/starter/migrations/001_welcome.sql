-- Each new user is welcomed: psql "$DATABASE_URL" -f migrations/001_welcome.sql
-- It needs the schema app_jobs (app-jobs migrate). Is there a table already? Then take the trigger.

begin;

create table users (
    id bigint generated always as identity primary key,
    email text not null
);

create trigger welcome after insert on users
for each row execute function app_jobs.tg_add_job_with_row_id('', 'welcome');

commit;
