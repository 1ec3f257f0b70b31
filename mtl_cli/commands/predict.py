"""``mtl-predict``: a table in, its rows with the predictions of every task out."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mtl_cli.commands.entry import MANY_NOTES, Parser, add_shared, check_shared, leave, note, own_words, reading, run
from mtl_cli.errors import ConfigError
from mtl_cli.paths import expanded
from mtl_cli.report_text import at_most
from mtl_cli.run.atomic import replacing

if TYPE_CHECKING:
    import polars as pl
_DESCRIPTION = """\
Predicts every task of a run for the rows of a file: one row out for each row in, in order.

The file needs the input columns of the training; their order, other columns and labels do not matter. The result has
the id column of the run (data.id; else the row number), TASK_pred, and for classes TASK_prob_CLASS, in your units
and class names. Categories that the training did not have count as unknown; how many is told."""


def main(argv: Sequence[str] | None = None) -> None:
    """The entry point of ``mtl-predict``. Ends the process with the exit code."""
    leave(run(predict, argv))


def predict(argv: Sequence[str]) -> None:
    """Runs the command.

    Raises:
        UserError: An argument, the run or the data cannot be used.
        TrainingError: The result cannot be written.
    """
    parser = Parser("mtl-predict", _DESCRIPTION, "mtl-predict runs/churn/NAME --data new.csv --out predictions.csv")
    parser.add_argument("run", metavar="RUN", help="run folder of mtl-train")
    parser.add_argument("--data", metavar="FILE", required=True, help="rows to predict: any table that mtl-train reads")
    parser.add_argument("--out", metavar="FILE", required=True, help="what to write: .csv, .tsv or .parquet")
    parser.add_argument("--id", metavar="COLUMN", help="column to copy into the result; '-' for row numbers")
    add_shared(parser)
    given = parser.parse_args(argv)
    if problems := check_shared(given, (".csv", ".tsv", ".parquet")):
        raise ConfigError(problems)
    from mtl_cli.build import build_source
    from mtl_cli.trained import load_run

    trained = load_run(given.run, checkpoint=given.checkpoint, device=given.device)
    for text in trained.notes:
        note(text)
    with own_words({"data.id": "Or number the rows with --id -.", "--id": "Or number the rows with --id -."}):
        trained = trained.reading(reading(given), given.source)
        source = build_source(trained.config, given.data, given.source)
        counted = _Counted(trained.predictions(source, id="" if given.id == "-" else given.id))
        write_table(counted, expanded(given.out))
    for text in [*at_most(trained.findings.notes(), MANY_NOTES), *at_most(counted.notes(), MANY_NOTES)]:
        note(text)
    plural = "" if counted.rows == 1 else "s"
    print(
        f"{counted.rows:,} row{plural} of {given.data} predicted with the {trained.checkpoint} weights "
        f"(epoch {trained.epoch}): {given.out}"
    )


def write_table(frames: Iterable[pl.DataFrame], path: Path) -> None:
    """Writes frames with the same columns below one another, whole or not at all; one frame is in memory at a time.

    Args:
        frames: One or more.
        path: The file: ``.parquet``, ``.csv`` or ``.tsv``.

    Raises:
        TrainingError: The file cannot be written.
    """
    if path.suffix.lower() == ".parquet":
        _write_parquet(frames, path)
        return
    with replacing(path) as file:
        for number, frame in enumerate(frames):
            separator = "\t" if path.suffix.lower() == ".tsv" else ","
            file.write(_flat(frame).write_csv(include_header=number == 0, separator=separator).encode())


def _flat(frame: pl.DataFrame) -> pl.DataFrame:
    """The frame with lists (what is predicted of tokens) as JSON, as text files hold no lists."""
    import polars as pl

    flat = []
    for column in frame.iter_columns():
        if isinstance(column.dtype, pl.List):
            texts = column.dtype.inner == pl.String
            element = pl.element().map_elements(_quoted, pl.String) if texts else pl.element().cast(pl.String)
            joined = column.list.eval(element).list.join(", ")
            flat.append(pl.select("[" + joined + "]").to_series().alias(column.name))
    return frame.with_columns(flat)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _write_parquet(frames: Iterable[pl.DataFrame], path: Path) -> None:
    """Parquet is written in one go: the frames wait beside the result, so that they need not fit into memory."""
    import polars as pl

    with replacing(path) as file, tempfile.TemporaryDirectory(dir=path.parent, prefix=".mtl-predict-") as scratch:
        parts = []
        for number, frame in enumerate(frames):
            parts.append(Path(scratch) / f"{number:09}.parquet")
            frame.write_parquet(parts[-1])
        whole = parts[0]
        if len(parts) > 1:
            whole = Path(scratch) / "whole.parquet"
            pl.scan_parquet(parts, glob=False).sink_parquet(whole)
        with whole.open("rb") as written:
            shutil.copyfileobj(written, file)


class _Counted:
    """The frames as they come, their rows counted and shown on a bar, and the numbers that are not finite."""

    def __init__(self, frames: Iterable[pl.DataFrame]) -> None:
        self._frames = frames
        self.rows = 0
        self._not_finite: dict[str, int] = {}

    def __iter__(self) -> Iterator[pl.DataFrame]:
        from tqdm import tqdm

        with tqdm(unit="row", unit_scale=True, disable=None) as bar:
            for frame in self._frames:
                for column in frame.iter_columns():
                    bad = int((~column.is_finite()).sum()) if column.dtype.is_float() else 0
                    if bad:
                        self._not_finite[column.name] = self._not_finite.get(column.name, 0) + bad
                self.rows += frame.height
                bar.update(frame.height)
                yield frame

    def notes(self) -> list[str]:
        """One line for each column with numbers that are not finite."""
        return [f"column '{name}' of the result: {n} numbers are not finite." for name, n in self._not_finite.items()]


if __name__ == "__main__":
    main()
