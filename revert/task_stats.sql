-- Revert app_jobs:task_stats from pg

begin;

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

commit;
