"""The table that ends a sweep: who came first, what failed and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from mtl_cli.run import write_json, write_text
from mtl_cli.sweep.records import JobRecord, collect, summarise
from mtl_cli.sweep.table import as_csv, as_markdown, as_text, ranked

__all__ = ["FORMAT", "JobRecord", "collect", "format_table", "summarise", "write"]

FORMAT = 1


def write(sweep_dir: Path | str, records: Sequence[JobRecord]) -> None:
    """Writes leaderboard.csv, leaderboard.md and leaderboard.json, each whole or not at all.

    CSV and JSON hold numbers in full, Markdown four digits; JSON holds everything known of each job.

    Args:
        sweep_dir: The sweep's folder.
        records: What ``collect`` gave.

    Raises:
        TrainingError: A file cannot be written.
    """
    folder = Path(sweep_dir)
    jobs = [{"rank": rank, **asdict(record)} for rank, record in ranked(records)]
    write_json(folder / "leaderboard.json", {"format": FORMAT, "summary": summarise(records), "jobs": jobs})
    write_text(folder / "leaderboard.csv", as_csv(records))
    write_text(folder / "leaderboard.md", f"{as_markdown(records)}\n{summarise(records)}\n")


def format_table(records: Sequence[JobRecord]) -> str:
    """The leaderboard for the terminal: the table, one line for each error, and how the jobs ended.

    Example:
        >>> done = JobRecord("a", "done", score=0.98765, monitor="mean", mode="max", parameters=850, seconds=3.2)
        >>> print(format_table([done, JobRecord("b", "failed", error="trainer.lr: must be positive, got -1.")]))
        rank  job  status  test/mean   score  parameters  seconds
           1  a    done               0.9877         850    3.200
              b    failed
        b: trainer.lr: must be positive, got -1.
        2 jobs: 1 done, 1 failed
    """
    errors = [f"{record.job}: {record.error}" for _, record in ranked(records) if record.error]
    return "\n".join([*([as_text(records)] if records else []), *errors, summarise(records)])
