"""The leaderboard as rows and columns, and as text."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from mtl_cli.sweep.comparison import Estimate, baseline, delta_m, methods, paired, scored_on
from mtl_cli.sweep.jobs import override_values
from mtl_cli.sweep.records import JobRecord

Cell = str | int | float | Estimate | None

_WIDTH = 140
_JOB_WIDTH = 32
_CELL_WIDTH = 24
_GAP = "  "


@dataclass(frozen=True)
class Column:
    """One column of the leaderboard.

    Args:
        name: Its header.
        cells: One per record, in the order of the rows.
        kind: How soon it is left out on a narrow terminal: first the ``metric``, then the ``cost``, then the
            ``override`` ones; ``fixed`` ones never.
    """

    name: str
    cells: list[Cell]
    kind: str = "fixed"

    @property
    def is_numeric(self) -> bool:
        """Whether it holds no text, so that it is aligned to the right."""
        return not any(isinstance(cell, str) for cell in self.cells)


def ranked(records: Sequence[JobRecord]) -> list[tuple[int | None, JobRecord]]:
    """The records in the order of the leaderboard, each with its rank.

    Finished jobs with a score come first, best first; then the others by name. If finished jobs were judged by
    different measures (``monitor``, ``mode``, other tasks or metrics) or on other rows (other data, another split),
    their scores cannot be compared and nobody has a rank; nor has one whose mean leaves out a task that others have a
    number for.

    Example:
        >>> a, b = (JobRecord(n, "done", score=s, monitor="mean", mode="max") for n, s in (("a", 0.5), ("b", 0.9)))
        >>> [(rank, record.job) for rank, record in ranked([a, b, JobRecord("c", "failed")])]
        [(1, 'b'), (2, 'a'), (None, 'c')]
    """
    by_name = sorted(records, key=lambda record: record.job)
    scored = [record for record in by_name if record.status == "done" and _score(record) is not None]
    if len({*map(_judged_by, scored)}) > 1:
        scored = []
    scored = _over_all_tasks(scored)
    sign = -1 if scored and scored[0].mode == "max" else 1
    best_first = sorted(scored, key=lambda record: sign * (_score(record) or 0.0))
    rest = [record for record in by_name if record not in scored]
    rest.sort(key=lambda record: record.status != "done")
    return [*((rank, record) for rank, record in enumerate(best_first, start=1)), *((None, record) for record in rest)]


def _judged_by(record: JobRecord) -> tuple[Hashable, ...]:
    """Equal for jobs whose scores are of the same measure on the same rows."""
    measure = record.monitor, record.mode, frozenset(record.primary.items())
    return *measure, record.data_fingerprint, scored_on(record.settings)


def _over_all_tasks(scored: Sequence[JobRecord]) -> list[JobRecord]:
    """Those whose score, if it is one over tasks, is over all that any has a validation number for."""
    if not scored or str(scored[0].monitor).rpartition("/")[2] not in ("mean", "worst"):
        return list(scored)
    known = [{task for task in record.primary if record.value(task, "val") is not None} for record in scored]
    every = set().union(*known)
    return [record for record, own in zip(scored, known, strict=True) if own == every]


def jobs_title(records: Sequence[JobRecord]) -> str:
    """The heading of ``columns``, which says what the jobs are ranked by: it is what each was chosen by.

    Example:
        >>> jobs_title([JobRecord("a", "done", score=0.5, monitor="mean", mode="max")])
        'Jobs, ranked by validation score (mean)'
        >>> jobs_title([JobRecord("a", "failed")])
        'Jobs'
    """
    first = next((record for rank, record in ranked(records) if rank == 1), None)
    return "Jobs" if first is None else f"Jobs, ranked by validation score ({first.monitor})"


def columns(records: Sequence[JobRecord]) -> list[Column]:
    """The leaderboard's columns, their cells in ranked order."""
    order = ranked(records)
    rows = [record for _, record in order]
    return [
        Column("rank", [rank for rank, _ in order]),
        Column("job", [record.job for record in rows]),
        Column("status", [record.status for record in rows]),
        *_override_columns(rows),
        *_metric_columns(rows),
        Column("test/mean", [record.mean for record in rows]),
        Column("score", [record.score for record in rows]),
        Column("parameters", [record.parameters for record in rows], "cost"),
        *_flops_column(rows),
        Column("seconds", [record.seconds for record in rows], "cost"),
        *_delta_column(rows),
        Column("error", [record.error for record in rows]),
    ]


def _flops_column(rows: Sequence[JobRecord]) -> list[Column]:
    cells: list[Cell] = [record.flops_per_row for record in rows]
    return [Column("flops/row", cells, "cost")] if any(cell is not None for cell in cells) else []


def as_csv(records: Sequence[JobRecord]) -> str:
    """The leaderboard as CSV, numbers in full."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    table = columns(records)
    writer.writerow([column.name for column in table])
    writer.writerows(zip(*(column.cells for column in table), strict=True))
    return out.getvalue()


def as_markdown(records: Sequence[JobRecord]) -> str:
    """The leaderboard as a Markdown table, numbers to four digits.

    Example:
        >>> print(as_markdown([JobRecord("a", "done", score=0.98765, monitor="mean", mode="max")]))
        | rank | job | status | test/mean | score | parameters | seconds | error |
        | ---: | :--- | :--- | ---: | ---: | ---: | ---: | ---: |
        | 1 | a | done |  | 0.9877 |  |  |  |
        <BLANKLINE>
    """
    return markdown_table(columns(records))


def markdown_table(table: Sequence[Column]) -> str:
    """Columns as a Markdown table."""
    lines = [
        [_markdown(column.name) for column in table],
        ["---:" if column.is_numeric else ":---" for column in table],
        *([_markdown(text(cell)) for cell in row] for row in zip(*(column.cells for column in table), strict=True)),
    ]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def as_text(records: Sequence[JobRecord]) -> str:
    """The leaderboard aligned for a terminal, at most about 140 wide; says which columns did not fit."""
    return text_table([column for column in columns(records) if column.name != "error"])


def text_table(table: Sequence[Column]) -> str:
    """Columns aligned for a terminal, at most about 140 wide.

    What does not fit: columns that say the same in every row are told of in a line below, then the least needed ones
    are left out, and named.

    Example:
        >>> print(text_table([Column("job", ["a", "b"]), Column("score", [0.5, 0.25])]))
        job   score
        a    0.5000
        b    0.2500
    """
    table = list(table)
    same: list[Column] = []
    if _width(table) > _WIDTH:
        same = [column for column in table if len(column.cells) > 1 and len({*map(text, column.cells)}) == 1]
        table = [column for column in table if column not in same]
    left_out: list[str] = []
    while _width(table) > _WIDTH and (extra := _least_needed(table)) is not None:
        table.remove(extra)
        left_out.insert(0, extra.name)
    rows = zip(*map(_aligned, table), strict=True)
    lines = [_GAP.join(row).rstrip() for row in rows]
    if told := ", ".join(f"{column.name} {text(column.cells[0])}" for column in same if text(column.cells[0])):
        lines.append(f"(the same in all rows: {told})")
    if left_out:
        lines.append(f"(not shown, see leaderboard.md: {', '.join(left_out)})")
    return "\n".join(lines)


def text(cell: Cell) -> str:
    """A cell for people: four significant digits, whole numbers in full, an estimate as it writes itself.

    Example:
        >>> [text(cell) for cell in (0.98765, 0.9, 12.3456, 9999.6, 123456.7, 1e-7, 1234567, None, "mmoe")]
        ['0.9877', '0.9000', '12.35', '10000', '123457', '1.000e-07', '1234567', '', 'mmoe']
    """
    if cell is None:
        return ""
    if not isinstance(cell, float):
        return str(cell)
    if 9999.5 <= abs(cell) < 1e15:
        return f"{cell:.0f}"
    return f"{cell:#.4g}".rstrip(".")


def _score(record: JobRecord) -> float | None:
    return record.score if record.score is not None and math.isfinite(record.score) else None


def _override_columns(rows: Sequence[JobRecord]) -> list[Column]:
    values = [override_values(record.overrides) for record in rows]
    # A job that died before it wrote its overrides must not make every key look as if it had been varied.
    known = [value for value, record in zip(values, rows, strict=True) if value or record.status == "done"]
    keys = dict.fromkeys(key for value in values for key in value)
    varied = [key for key in keys if len({value.get(key) for value in known}) > 1]
    return [Column(key, [value.get(key) for value in values], "override") for key in varied]


def _metric_columns(rows: Sequence[JobRecord]) -> list[Column]:
    wanted = dict.fromkeys(f"{task}/{metric}" for record in rows for task, metric in record.primary.items())
    names = [_split_of(name, rows) + name for name in wanted]
    return [Column(name, [record.metrics.get(name) for record in rows], "metric") for name in names]


def _delta_column(rows: Sequence[JobRecord]) -> list[Column]:
    """delta-m of each job against the baseline's job with the same seed, if there is any."""
    among = methods(rows)
    found: dict[str, float | None] = {}
    for method in among:
        base = baseline(method, among)
        if base is not None:
            found |= {ours.job: delta_m(ours, theirs) for ours, theirs in paired(method, base)}
    return [Column("delta-m %", [found.get(record.job) for record in rows])] if found else []


def _split_of(name: str, rows: Sequence[JobRecord]) -> str:
    """The test split if any job has it: one column never mixes splits."""
    return "test/" if any(f"test/{name}" in record.metrics for record in rows) else "val/"


def _markdown(cell: str) -> str:
    return " ".join(cell.split()).replace("|", "\\|")


def _elided(column: Column) -> list[str]:
    longest = _JOB_WIDTH if column.name == "job" else _CELL_WIDTH
    return [_elide(text(cell), longest) for cell in column.cells]


def _elide(cell: str, longest: int) -> str:
    """Cuts the middle out: both the words at the start and the hash at the end tell jobs apart."""
    if len(cell) <= longest:
        return cell
    tail = (longest - 1) // 2
    return f"{cell[: longest - 1 - tail]}…{cell[-tail:]}"


def _aligned(column: Column) -> list[str]:
    cells = [column.name, *_elided(column)]
    width = max(map(len, cells))
    return [cell.rjust(width) if column.is_numeric else cell.ljust(width) for cell in cells]


def _width(table: Sequence[Column]) -> int:
    return sum(len(_aligned(column)[0]) for column in table) + len(_GAP) * (len(table) - 1)


def _least_needed(table: Sequence[Column]) -> Column | None:
    for kind in ("metric", "cost", "override"):  # what was swept is what a row is about
        found = [column for column in table if column.kind == kind]
        if found:
            return found[-1]
    return None
