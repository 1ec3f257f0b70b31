"""``mtl-evaluate``: the numbers of a run, again or on other labelled rows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mtl_cli.commands.entry import MANY_NOTES, Parser, add_shared, check_shared, leave, note, own_words, reading, run
from mtl_cli.errors import ConfigError, Problem, RunError, did_you_mean, listed
from mtl_cli.paths import expanded
from mtl_cli.report_text import at_most
from mtl_cli.results_text import results_table, undefined_notes
from mtl_cli.run import write_json

if TYPE_CHECKING:
    from mtl_cli.trained import Evaluated, TrainedRun

_SPLITS = ("train", "val", "test")
_DESCRIPTION = """\
Computes every metric of a run's tasks, over whole splits and in your units.

Without --data: on the run's own rows; for val and test these are the numbers that the training ended with.
With --data: on all rows of a labelled file. A row without a label for a task does not count for it, and a task
whose column the file lacks is left out, with a note."""


def main(argv: Sequence[str] | None = None) -> None:
    """The entry point of ``mtl-evaluate``. Ends the process with the exit code."""
    leave(run(evaluate, argv))


def evaluate(argv: Sequence[str]) -> None:
    """Runs the command.

    Raises:
        UserError: An argument, the run or the data cannot be used.
        TrainingError: The result cannot be written.
    """
    parser = Parser("mtl-evaluate", _DESCRIPTION, "mtl-evaluate runs/churn/NAME --data labelled.csv --out metrics.json")
    parser.add_argument("run", metavar="RUN", help="run folder of mtl-train")
    parser.add_argument("--data", metavar="FILE", help="rows with labels; default: the run's own data")
    parser.add_argument("--split", metavar="NAME", help="train, val or test; default: test if there is one, else val")
    parser.add_argument("--out", metavar="FILE", help="also write the numbers to a .json file")
    add_shared(parser)
    given = parser.parse_args(argv)
    problems = [
        *check_shared(given, (".json",)),
        *_check_split(given.split, given.data),
        *_check_of_file({"source": given.source, **reading(given)}, given.data),
    ]
    if problems:
        raise ConfigError(problems)
    from mtl_cli.trained import load_run

    trained = load_run(given.run, checkpoint=given.checkpoint, device=given.device)
    if given.data is None:
        split, found = trained.evaluate_split(given.split)
    else:
        with own_words():
            trained = trained.reading(reading(given), given.source)
            split, found = "data", trained.evaluate_file(given.data, source=given.source)
    name = split if given.data is None else given.data
    undefined = undefined_notes(trained.config, found.evaluation, found.counts, name, found.left_out)
    texts = [*trained.notes, *at_most(found.notes, MANY_NOTES), *undefined]
    if given.data is None and not found.changed:
        texts += _differences(trained, split, found)
    for text in texts:
        note(text)
    if given.out is not None:
        write_json(expanded(given.out), _record(trained, split, given.data, found))
    print(f"{found.rows:,} row{'' if found.rows == 1 else 's'}, {trained.checkpoint} weights (epoch {trained.epoch})")
    everything = f"{given.out}" if given.out is not None else "the file of --out"
    print(results_table(trained.config, found.evaluation, name, everything))


def _check_of_file(given: Mapping[str, str | None], data: str | None) -> list[Problem]:
    """What is wrong with arguments that say how the file of --data is to be read."""
    what, hint = "goes with --data, got no file", "The run's own rows are read as in training."
    return [Problem(f"--{key}", what, hint) for key, value in given.items() if value is not None and data is None]


def _check_split(split: str | None, data: str | None) -> list[Problem]:
    if split is None:
        return []
    if data is not None:
        what = "cannot be given together with --data, whose rows all count"
        return [Problem("--split", what, "Leave one of the two out.")]
    if split not in _SPLITS:
        return [Problem("--split", f"must be train, val or test, got '{split}'", did_you_mean(split, _SPLITS))]
    return []


def _differences(trained: TrainedRun, split: str, found: Evaluated) -> list[str]:
    """How the numbers differ from those that the training ended with, where both are of the same weights."""
    try:
        summary: Mapping[str, Any] = trained.folder.read_json("summary.json")
        before = {k: v for k, v in summary["metrics"].items() if k.startswith(f"{split}/")}
        same_weights = summary["weights"] == trained.checkpoint
    except (RunError, KeyError, TypeError, AttributeError):
        return []  # the run has not ended, or its summary is damaged: there is nothing to compare with
    now = found.evaluation.flat(split)
    if not before or not same_weights or before == now:
        return []
    differing = [key for key in now if now[key] != before.get(key)]
    pairs = listed([f"{key} {before.get(key)} -> {now[key]}" for key in differing], 3)
    nearly = all(_nearly(now[key], before.get(key)) for key in differing)
    if nearly and trained.config.trainer.compile:
        why = "The model was compiled for its training (trainer.compile), and here it is not: the last digits differ."
    elif nearly:
        why = "Another machine, device, number of threads or version of PyTorch changes the last digits."
    else:
        why = (
            "Another machine changes the last digits, and these are more: it is other code than in the training, or a "
            "component of one's own kept what no checkpoint holds (train.log warns of that)."
        )
    return [f"not the numbers of summary.json: {pairs}. {why}"]


def _nearly(value: float | None, other: float | None) -> bool:
    """Whether what differs in two numbers may be the arithmetic alone."""
    if value is None or other is None:
        return value is other
    return math.isclose(value, other, rel_tol=0.01, abs_tol=0.001)


def _record(trained: TrainedRun, split: str, data: str | None, found: Evaluated) -> dict[str, Any]:
    return {
        "format": 1,
        "run": str(trained.folder.path),
        "checkpoint": trained.checkpoint,
        "epoch": trained.epoch,
        "data": data,
        "split": split if data is None else None,
        "rows": found.rows,
        "labelled": {name: found.counts[name].labelled for name in trained.config.tasks},
        "primary": dict(found.evaluation.primary),
        "metrics": found.evaluation.flat(split),
        "notes": list(found.notes),
    }


if __name__ == "__main__":
    main()
