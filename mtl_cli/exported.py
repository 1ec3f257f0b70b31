"""A trained model as one file that PyTorch runs without this package, and a JSON beside it that says how to use it."""

from __future__ import annotations

import copy
import io
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mtl_cli.build import autocast_type
from mtl_cli.data import Features
from mtl_cli.errors import Problem, RunError, TrainingError
from mtl_cli.model.gates import GateUse
from mtl_cli.run import versions, write_bytes, write_text
from mtl_cli.schema import RunConfig
from mtl_cli.trained import TrainedRun
from mtl_cli.types import Inputs

#: The largest difference to the model that an export may have, of the larger of 1 and the output.
TOLERANCE = 1e-5
_SCALED = (
    "numbers as in the data, truth values as 1 and 0, dates as days since 1970-01-01; then by the `mode` of the "
    "column's `scaler`: 0: as it is, 1: 0, 2: (x - mean) / std, 3: rank among `quantiles` from 0 to 1 (linear between "
    "two of them, of equal ones the middle), to a standard normal, clipped to 5; an empty cell: `fill`"
)
_EMPTY = (
    "a cell is empty if it holds no value, NaN, or one of these texts as a whole; a number among them is meant in any "
    "spelling, and in columns of numbers too"
)
_CODES = (
    "place in the column's list of categories, from 1; 0: unknown; an empty cell: as in `missing`. A cell is looked up "
    "as text: text as it is, numbers in their shortest form (7.0 is `7`), truth values as `true` and `false`. What is "
    "not found so, mtl-predict takes for the category that it spells otherwise: `1.0` for `1`; `True`, `yes` or `1` "
    "for `true` if the categories are two truth values"
)
_PIXELS = (
    "pixels as they are stored, those of files from 0 to 255: the program scales them. Files are turned upright "
    "(EXIF), laid on white where they are transparent (not by `version` 1), made grey (Pillow's L) or RGB by the "
    "number of channels, and resized to the `size` of `options` (height, width; bilinear) if it is given"
)
_ROWS = (1, 2, 64)  # batches that the file is tried on


class Program(nn.Module):
    """What is exported: the inputs of some rows in, the outputs of every task out, by its name.

    Args:
        trained: The run.

    Shape:
        numeric (B, F) float32, categorical (B, number of categorical columns) int64, images by column -> (B, C) of each
        task, in the order of the configuration.
    """

    def __init__(self, trained: TrainedRun) -> None:
        super().__init__()
        self.model = copy.deepcopy(trained.model).eval()
        for module in self.model.modules():
            if isinstance(module, GateUse):
                module.training = True  # what it counts in evaluations is no part of the program
        places = {task.name: place for place, task in enumerate(trained.tasks)}
        self._places = [(name, places[name]) for name in trained.config.tasks]

    def forward(self, numeric: Tensor, categorical: Tensor, blocks: dict[str, Tensor]) -> dict[str, Tensor]:
        """Runs the model."""
        outputs = self.model(Inputs(numeric, categorical, blocks))
        return {name: outputs[place].contiguous() for name, place in self._places}


def export(trained: TrainedRun, path: Path) -> float:
    """Writes ``path`` (for ``torch.export.load``) and, beside it, the same name with ``.json``.

    The file is read back and tried on made-up rows before it is kept.

    Args:
        trained: A run, loaded on the CPU.
        path: Where to write.

    Returns:
        The largest difference between the file's outputs and the model's.

    Raises:
        RunError: The model cannot be exported.
        TrainingError: The file gives other numbers than the model, or cannot be written.
    """
    ragged = [block for block in trained.features.spec.blocks if block.type != "image"]
    if ragged:
        what = f"reads texts or tokens (column {', '.join(b.name for b in ragged)}), which cannot be exported"
        raise RunError(Problem(str(trained.folder.path), what, "Use mtl-predict."))
    program = Program(trained)
    example = _made_up_rows(trained, 4)
    rows = torch.export.Dim("rows", min=1)
    shapes = ({0: rows}, {0: rows}, {name: {0: rows} for name in example[2]})
    try:
        with torch.no_grad():
            traced = torch.export.export(program, example, dynamic_shapes=shapes)
    except Exception as error:  # whatever torch.export may raise
        what = f"cannot be exported by PyTorch {torch.__version__} ({' '.join(str(error).split())[:300]})"
        raise RunError(Problem(str(trained.folder.path), what)) from error
    text = json.dumps(description(trained), indent=2, ensure_ascii=False) + "\n"
    buffer = io.BytesIO()
    torch.export.save(traced, buffer, extra_files={"mtl.json": text})
    difference = _largest_difference(trained, program, buffer)
    if not difference <= TOLERANCE:
        raise TrainingError(
            f"{path}: not written: the exported program gives other numbers than the model, by {difference:.3g}."
        )
    write_bytes(path, buffer.getvalue())
    write_text(path.with_suffix(".json"), text)
    return difference


def precision_notes(trained: TrainedRun) -> list[str]:
    """What to tell of a run whose predictions the program does not repeat to the digit."""
    if autocast_type(trained.config) is None:
        return []
    return [
        "the run predicts in bfloat16 (trainer.precision=bf16-mixed), and the program computes in float32: its outputs "
        "differ from those of mtl-predict by about 1%."
    ]


def description(trained: TrainedRun) -> dict[str, Any]:
    """What the JSON says: inputs with their preprocessing, outputs with their meaning, and where the model is from."""
    features, config = trained.features, trained.config
    spec = features.spec
    kinds = {task.name: task.kind for task in trained.tasks}
    return {
        "format": 1,
        "use": "torch.export.load(FILE).module()(numeric, categorical, blocks) gives the outputs of each task by name",
        "run": str(trained.folder.path),
        "checkpoint": trained.checkpoint,
        "epoch": trained.epoch,
        "versions": versions(),
        "precision": "float32",
        "inputs": {
            "empty": {"texts": _empty_texts(config), "values": _EMPTY},
            "numeric": {
                "shape": ["rows", spec.numeric_dim], "type": "float32",
                "columns": [  # scaled as `preprocessing` says; `missing`: place of the 0/1 number for an empty cell
                    {"name": column.name, "type": column.type, "first": first, "width": column.width, "missing": flag}
                    for column, (first, flag) in zip(features.numeric, features.places(), strict=True)
                ],
                "values": _SCALED,
            },
            "categorical": {
                "shape": ["rows", len(spec.categories)], "type": "int64",
                "columns": [column.name for column in features.categorical],
                "codes": _CODES,
                "missing": [column.size - 1 if column.missing else 0 for column in features.categorical],
                "number": list(spec.categories),
            },
            "blocks": {
                block.name: {"type": block.type, "shape": ["rows", *block.shape], "values": _PIXELS}
                for block in spec.blocks
            },
        },
        "preprocessing": _preprocessing(features),
        "outputs": [
            {
                "task": name,
                "kind": task.kind.name,
                "outputs": kinds[name].num_outputs,
                "formula": kinds[name].formula,
                "classes": list(kinds[name].classes),
                "options": dict(task.kind.options),
                "state": kinds[name].state(),
            }
            for name, task in config.tasks.items()
        ],
    }  # fmt: skip


def _empty_texts(config: RunConfig) -> list[str] | dict[str, list[str]]:
    """What means "no value" besides null and NaN; by source where they have names."""
    given = {name: source.component.options.get("missing", []) for name, source in config.sources.items()}
    texts = {name: [""] if markers is None else list(markers) for name, markers in given.items()}
    return texts.get("", texts)


def _preprocessing(features: Features) -> dict[str, Any]:
    """What is left to do outside of the program, which holds the links of categories and scales pixels."""
    saved = {key: value for key, value in features.to_json().items() if key != "links"}
    images = [{key: value for key, value in block.items() if key not in ("mean", "std")} for block in saved["blocks"]]
    return {**saved, "blocks": images}


def _made_up_rows(trained: TrainedRun, count: int) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    spec = trained.features.spec
    draw = torch.Generator().manual_seed(count)
    codes = [torch.randint(number, (count, 1), generator=draw) for number in spec.categories]
    blocks = {
        block.name: torch.randint(256, (count, *block.shape), generator=draw, dtype=torch.uint8)
        for block in spec.blocks
    }
    categorical = torch.cat(codes, 1) if codes else torch.empty(count, 0, dtype=torch.int64)
    return torch.randn(count, spec.numeric_dim, generator=draw), categorical, blocks


def _largest_difference(trained: TrainedRun, program: Program, file: io.BytesIO) -> float:
    file.seek(0)
    loaded = torch.export.load(file).module()
    differences = []
    for count in _ROWS:
        rows = _made_up_rows(trained, count)
        with torch.no_grad():
            wanted, found = program(*rows), loaded(*rows)
        for name, outputs in wanted.items():
            differences.append(((found[name] - outputs).abs() / outputs.abs().clamp_min(1.0)).max())
    return float(torch.stack(differences).max())  # of tensors: where one is NaN, so is the largest
