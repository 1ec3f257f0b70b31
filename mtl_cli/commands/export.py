"""``mtl-export``: a trained model as one file that needs no mtl-train to run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mtl_cli.commands.entry import Parser, check_out, check_run, leave, note, run
from mtl_cli.errors import ConfigError
from mtl_cli.paths import expanded

_DESCRIPTION = """\
Writes the model of a run as a program of torch.export (.pt2), and beside it a .json.

  program = torch.export.load("model.pt2").module()
  outputs = program(numeric, categorical, {})      # {"churned": (rows, 1), "segment": (rows, 3)}

One output for each task, by its name, in the order of the configuration. The .json says how a table becomes the inputs
(columns, scaling, categories) and what the outputs mean (classes, units); it is also inside the .pt2, as mtl.json. The
file is tried before it is kept: its outputs are those of the model in float32 to 1e-5, whatever the number of rows."""


def main(argv: Sequence[str] | None = None) -> None:
    """The entry point of ``mtl-export``. Ends the process with the exit code."""
    leave(run(export, argv))


def export(argv: Sequence[str]) -> None:
    """Runs the command.

    Raises:
        UserError: An argument or the run cannot be used.
        TrainingError: The file would give other numbers, or cannot be written.
    """
    parser = Parser("mtl-export", _DESCRIPTION, "mtl-export runs/churn/NAME --out model.pt2")
    parser.add_argument("run", metavar="RUN", help="run folder of mtl-train")
    parser.add_argument("--out", metavar="FILE", required=True, help="what to write: .pt2; a .json goes beside it")
    parser.add_argument("--checkpoint", metavar="NAME", help="best or last; default: best if there is one")
    parser.add_argument("--overwrite", action="store_true", help="replace the files if they exist")
    given = parser.parse_args(argv)
    problems, wrong = check_run(given.run, given.checkpoint), check_out(given.out, (".pt2",), given.overwrite, None)
    if problems or wrong:
        raise ConfigError([*problems, *wrong])
    beside = str(Path(given.out).with_suffix(".json"))
    if wrong := check_out(beside, (".json",), given.overwrite, None):
        raise ConfigError(wrong)
    from mtl_cli import exported
    from mtl_cli.trained import load_run

    trained = load_run(given.run, checkpoint=given.checkpoint, device="cpu")
    for text in (*trained.notes, *exported.precision_notes(trained)):
        note(text)
    difference = exported.export(trained, expanded(given.out))
    names = ", ".join(trained.config.tasks)
    print(
        f"{given.out} and {beside}: the {trained.checkpoint} weights (epoch {trained.epoch}), outputs {names}; "
        f"largest difference to the model {difference:.1e}"
    )


if __name__ == "__main__":
    main()
