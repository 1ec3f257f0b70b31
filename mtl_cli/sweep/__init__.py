"""Sweeps: names of jobs, what became of each, and the leaderboard."""

from mtl_cli.sweep.jobs import job_name
from mtl_cli.sweep.leaderboard import format_table, write
from mtl_cli.sweep.records import JobRecord, collect, summarise

__all__ = ["JobRecord", "collect", "format_table", "job_name", "summarise", "write"]
