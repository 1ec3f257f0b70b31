"""Sweeps: names of jobs, what became of each, and the leaderboard."""

from mtl_cli.sweep.jobs import job_name
from mtl_cli.sweep.leaderboard import format_table, write
from mtl_cli.sweep.records import JobRecord, collect, how_jobs_ended

__all__ = ["JobRecord", "collect", "format_table", "how_jobs_ended", "job_name", "write"]
