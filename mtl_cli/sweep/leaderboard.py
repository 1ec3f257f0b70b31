"""The table that ends a sweep: who came first, what failed and why."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from mtl_cli.run import write_text
from mtl_cli.run.atomic import finite
from mtl_cli.sweep import grouping, payoff
from mtl_cli.sweep.comparison import Method, methods
from mtl_cli.sweep.method_table import as_json, is_folded, method_columns, methods_title, remarks
from mtl_cli.sweep.records import JobRecord, how_jobs_ended
from mtl_cli.sweep.table import as_csv, as_markdown, as_text, jobs_title, markdown_table, ranked, text_table

FORMAT = 1


def write(sweep_dir: Path | str, records: Sequence[JobRecord]) -> None:
    """Writes leaderboard.csv, leaderboard.md and leaderboard.json, each whole or not at all.

    CSV holds a row for each job, with numbers in full. Markdown has the answers that the sweep gives (does sharing
    pay? which tasks together?), the table with seeds folded if there are several, and that of the jobs. JSON holds
    everything.

    Args:
        sweep_dir: The sweep's folder.
        records: What ``collect`` gave.

    Raises:
        TrainingError: A file cannot be written.
    """
    folder = Path(sweep_dir)
    write_text(folder / "leaderboard.json", whole_json(records))
    write_text(folder / "leaderboard.csv", as_csv(records))
    write_text(folder / "leaderboard.md", whole_markdown(records))


def answer(among: Sequence[Method]) -> str | None:
    """What a sweep says on the questions that it can answer; None if it can answer none."""
    told = [text for text in (payoff.answer(among), grouping.answer(among)) if text]
    return "\n\n".join(told) or None


def whole_json(records: Sequence[JobRecord]) -> str:
    """What leaderboard.json holds: everything known of each method and job."""
    jobs = [{"rank": rank, **asdict(record)} for rank, record in ranked(records)]
    among = methods(records)
    found = {
        "format": FORMAT, "summary": how_jobs_ended(records), "methods": as_json(among),
        "which_tasks_together": grouping.as_json(among), "jobs": jobs,
    }  # fmt: skip
    # Programs read it, from terminals of any encoding too: no sign that one may lack.
    return json.dumps(finite(found), indent=2, ensure_ascii=True, allow_nan=False, default=str) + "\n"


def whole_markdown(records: Sequence[JobRecord]) -> str:
    """What leaderboard.md holds."""
    among = methods(records)
    told = answer(among)
    parts = [
        *([f"```\n{told}\n```\n"] if told else []),
        *([f"## {methods_title(among)}\n", markdown_table(method_columns(among))] if is_folded(among) else []),
        *(f"{line}\n" for line in remarks(among) if is_folded(among)),
        f"## {jobs_title(records)}\n",
        as_markdown(records),
        f"{how_jobs_ended(records)}\n",
    ]
    return "\n".join(parts)


def format_table(records: Sequence[JobRecord]) -> str:
    """The leaderboard for the terminal: the table, one line for each mistake, how the jobs ended, what it says.

    With several seeds there is one row for each method; each job is in leaderboard.csv.

    Example:
        >>> done = JobRecord("a", "done", score=0.98765, monitor="mean", mode="max", parameters=850, seconds=3.2)
        >>> print(format_table([done, JobRecord("b", "failed", error="trainer.lr: must be positive, got -1.")]))
        Jobs, ranked by validation score (mean):
        rank  job  status  test/mean   score  parameters  seconds
           1  a    done               0.9877         850    3.200
              b    failed
        b: trainer.lr: must be positive, got -1.
        2 jobs: 1 done, 1 failed
    """
    among = methods(records)
    told = answer(among)
    table: list[str] = []
    if is_folded(among):
        table = [f"{methods_title(among)}:", text_table(method_columns(among)), *remarks(among)]
    elif records:
        table = [f"{jobs_title(records)}:", as_text(records)]
    return "\n".join([*table, *_errors(records), how_jobs_ended(records), *(["", told] if told else [])])


def _errors(records: Sequence[JobRecord]) -> list[str]:
    """What went wrong, each mistake once: one that all jobs have in common would hide the others."""
    jobs: dict[str, list[str]] = {}
    for _, record in ranked(records):
        if record.error:
            jobs.setdefault(record.error, []).append(record.job)
    return [f"{own[0] if len(own) == 1 else f'{len(own)} jobs'}: {error}" for error, own in jobs.items()]
