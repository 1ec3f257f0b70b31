"""``mtl-report DIR...``: a page with tables and plots, from a run or from sweeps."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mtl_cli.errors import MTLError, Problem, RunError, UserError
from mtl_cli.run import MetricsLog, RunFolder, is_run_folder, write_text
from mtl_cli.run.atomic import write_error
from mtl_cli.sweep import JobRecord, collect, format_table
from mtl_cli.sweep.leaderboard import whole_json, whole_markdown

_HELP = """Tables and plots of a run or of sweeps, as one HTML page without any network.

  mtl-report runs/digits/2026-01-01_12-00-00     the page of a run: report.html in its folder
  mtl-report sweeps/first sweeps/second          several sweeps in one table
  mtl-report sweeps/first --format md            the leaderboard again, as Markdown
  mtl-report sweeps/first --format svg           each plot as a file: plots/*.svg in its folder
"""


def main(argv: Sequence[str] | None = None) -> None:
    """The entry point of ``mtl-report``. Ends the process with the exit code."""
    parser = argparse.ArgumentParser(
        prog="mtl-report", description=_HELP, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", type=Path, metavar="DIR", help="a run folder, or folders of sweeps")
    parser.add_argument("--format", choices=("html", "md", "json", "text", "svg"), default="html", help="default: html")
    out = "default: report.html (svg: the folder plots) in the first DIR; else printed"
    parser.add_argument("--out", type=Path, metavar="FILE", help=out)
    arguments = parser.parse_args(argv)
    try:
        if arguments.format == "svg":
            _write_plots(arguments.folders, arguments.out or arguments.folders[0] / "plots")
            return
        text = _report(arguments.folders, arguments.format)
        file = arguments.out or (arguments.folders[0] / "report.html" if arguments.format == "html" else None)
        if file is None:
            print(text, end="" if text.endswith("\n") else "\n")
        else:
            write_text(file, text)
            print(file)
    except MTLError as error:
        print(error, file=sys.stderr)
        sys.exit(2 if isinstance(error, UserError) else 1)


def _report(folders: Sequence[Path], form: str) -> str:
    runs = [folder for folder in folders if folder.is_dir() and is_run_folder(folder)]
    if runs and (len(folders) > 1 or form not in ("html", "md")):
        what = "is a run; several folders, and the formats json and text, are for sweeps"
        raise RunError(f"{runs[0]}: {what}.")
    if runs:
        from mtl_cli.report import run_markdown, run_page

        run = RunFolder.open(runs[0])
        settings = run.read_settings()
        try:
            return run_markdown(run) if form == "md" else run_page(run, settings)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            what = f"cannot be shown: summary.json or metrics.jsonl is damaged ({type(error).__name__}: {error})"
            raise RunError(
                Problem(str(run.path), what, f"mtl-train resume={run.path} makes the first anew.")
            ) from error
    records = _collect(folders)
    if form == "html":
        from mtl_cli.report import sweep_page

        logs = {name: _log(path) for name, path in _jobs(folders).items()}
        return sweep_page(", ".join(folder.resolve().name for folder in folders), records, logs)
    return {"md": whole_markdown, "json": whole_json, "text": format_table}[form](records)


def _write_plots(folders: Sequence[Path], out: Path) -> None:
    from mtl_cli.report import plot_files

    files = plot_files(_report(folders, "html"))
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(out, error) from error
    for name, text in files.items():
        write_text(out / name, text)
        print(out / name)


def _collect(folders: Sequence[Path]) -> list[JobRecord]:
    """All jobs, in the order of the folders given; with several sweeps a job's name has its sweep's before it."""
    records = []
    for folder in folders:
        found = collect(folder)
        if not found:
            raise RunError(f"{folder}: holds no run. Give the folder of a run or of a sweep.")
        records += [replace(r, job=f"{folder.name}/{r.job}") if len(folders) > 1 else r for r in found]
    return records


def _jobs(folders: Sequence[Path]) -> dict[str, Path]:
    """Folder of each job, by the name that ``_collect`` gives it."""
    several = len(folders) > 1
    return {
        f"{folder.name}/{record.job}" if several else record.job: folder / record.job
        for folder in folders
        for record in collect(folder)
    }


def _log(folder: Path) -> list[dict[str, object]]:
    path = folder / "metrics.jsonl"
    return MetricsLog(path).read() if path.exists() else []


if __name__ == "__main__":
    main()
