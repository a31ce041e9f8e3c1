"""`python -m app_jobs` is the console command `app-jobs`."""

from app_jobs.cli import main

main()
