"""``mtl-report DIR...``: a page with tables and plots, from a run or from sweeps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from mtl_cli.commands.entry import Parser, check_out, leave, note, run
from mtl_cli.errors import ConfigError, Problem, RunError
from mtl_cli.paths import expanded
from mtl_cli.run import MetricsLog, RunFolder, is_run_folder, write_bytes, write_text
from mtl_cli.run.atomic import write_error
from mtl_cli.sweep import JobRecord, collect, format_table
from mtl_cli.sweep.leaderboard import whole_json, whole_markdown

if TYPE_CHECKING:
    from mtl_cli.report import Report

_HELP = """Tables and plots of a run or of sweeps, as one HTML page without any network.

  mtl-report runs/digits/2026-01-01_12-00-00     the page of a run: report.html in its folder
  mtl-report sweeps/first sweeps/second          several sweeps in one table
  mtl-report sweeps/first --format md            the leaderboard again, as Markdown
  mtl-report sweeps/first --format svg           each plot as a file: plots/*.svg in its folder
"""
_Shown = TypeVar("_Shown")
_TABLES: Mapping[str, Callable[[Sequence[JobRecord]], str]] = {
    "md": whole_markdown,
    "json": whole_json,
    "text": format_table,
}


def main(argv: Sequence[str] | None = None) -> None:
    """The entry point of ``mtl-report``. Ends the process with the exit code."""
    leave(run(report, argv))


def report(argv: Sequence[str]) -> None:
    """Runs the command.

    Raises:
        UserError: An argument or a folder cannot be used.
        TrainingError: The result cannot be written.
    """
    parser = Parser("mtl-report", _HELP, "mtl-report runs/digits/2026-01-01_12-00-00 --format svg --out figures")
    parser.add_argument("folders", nargs="+", type=Path, metavar="DIR", help="a run folder, or folders of sweeps")
    formats = ("html", *_TABLES, "svg", "png")
    parser.add_argument("--format", choices=formats, default="html", help="default: html")
    default = "default: report.html (svg, png: the folder plots) in the first DIR; else printed"
    parser.add_argument("--out", type=Path, metavar="FILE", help=default)
    given = parser.parse_args(argv)
    folders: list[Path] = given.folders
    out = None if given.out is None else expanded(given.out)
    if given.format in ("svg", "png"):
        _write_plots(folders, out or folders[0] / "plots", given.format)
        return
    if out is not None:  # of any name; one that is there is written anew
        wrong = check_out(str(out), (out.suffix.lower(),), True, None)
        if wrong:
            raise ConfigError(wrong)
    text = _found(folders).page() if given.format == "html" else _told(folders, given.format)
    file = out or (folders[0] / "report.html" if given.format == "html" else None)
    if file is None:
        print(text, end="" if text.endswith("\n") else "\n")
    else:
        write_text(file, text)
        print(file)


def _found(folders: Sequence[Path]) -> Report:
    """What there is to show."""
    from mtl_cli.report import run_report, sweep_report

    single = _single_run(folders, shown=True)
    if single is not None:
        settings = single.read_settings()
        return _undamaged(single, lambda: run_report(single, settings))
    records = _collect(folders)
    logs = {record.job: _log(folder) for folder, record in records.items()}
    return sweep_report(", ".join(folder.resolve().name for folder in folders), list(records.values()), logs)


def _told(folders: Sequence[Path], form: str) -> str:
    """The tables as text."""
    single = _single_run(folders, shown=form == "md")
    if single is None:
        return _TABLES[form](list(_collect(folders).values()))
    from mtl_cli.report import run_markdown

    return _undamaged(single, lambda: run_markdown(single))


def _single_run(folders: Sequence[Path], *, shown: bool) -> RunFolder | None:
    """The run, if it is one and not sweeps.

    Args:
        folders: What was given.
        shown: Whether the format can show a run.
    """
    runs = [folder for folder in folders if folder.is_dir() and is_run_folder(folder)]
    if not runs:
        return None
    if len(folders) > 1 or not shown:
        what = "is a run; several folders, and the formats json and text, are for sweeps"
        raise RunError(Problem(str(runs[0]), what))
    return RunFolder.open(runs[0])


def _undamaged(single: RunFolder, show: Callable[[], _Shown]) -> _Shown:
    try:
        return show()
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        what = f"cannot be shown: a .json or .jsonl file in it is damaged ({type(error).__name__}: {error})"
        hint = f"mtl-train resume={single.path} makes summary.json anew."
        raise RunError(Problem(str(single.path), what, hint)) from error


def _write_plots(folders: Sequence[Path], out: Path, form: str) -> None:
    """Writes each plot as a file; files of other names in the folder stay as they are."""
    if out.exists() and not out.is_dir():
        raise ConfigError(Problem("--out", f"must be a folder for the plots, got the file '{out}'"))
    from mtl_cli.report import plot_files
    from mtl_cli.report.png import painter

    paint = painter() if form == "png" else str.encode
    files = {f"{name}.{form}": paint(text) for name, text in plot_files(_found(folders).plots).items()}
    if not files:
        raise RunError(Problem(str(folders[0]), "has nothing to draw: no job has finished"))
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(out, error) from error
    for name, data in files.items():
        write_bytes(out / name, data)
    for name in files:
        print(out / name)


def _collect(folders: Sequence[Path]) -> dict[Path, JobRecord]:
    """All jobs by their folder, in the order of the folders given.

    With several sweeps a job's name has its sweep's before it; with several sweeps of one name all of its path.
    """
    names = [folder.resolve().name for folder in folders]
    if len(set(names)) < len(names):
        names = [str(folder) for folder in folders]
    records = {}
    for name, folder in zip(names, folders, strict=True):
        found = collect(folder)
        if not found:
            raise RunError(Problem(str(folder), "holds no run", "Give the folder of a run or of a sweep."))
        for record in found:
            own = replace(record, job=f"{name}/{record.job}") if len(folders) > 1 else record
            records[folder / record.job] = own
    return records


def _log(folder: Path) -> list[dict[str, object]]:
    """The metrics over time of a job; one whose file is damaged is in all but the curves, and told of."""
    path = folder / "metrics.jsonl"
    try:
        records = MetricsLog(path).read()
    except RunError as error:
        note(f"{error} The job is left out of the curves.")
        return []
    known = [r for r in records if isinstance(r.get("split"), str) and isinstance(r.get("epoch"), int | float)]
    if len(known) < len(records):
        lost = len(records) - len(known)
        note(f"{path}: {lost} of {len(records)} records name no split and epoch. They are left out of the curves.")
    return known


if __name__ == "__main__":
    main()
