"""None: the tables are deployed by app_jobs. Without this module Django tells us of no migrate."""
