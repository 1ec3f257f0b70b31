"""``validate``: a whole configuration checked at once, before any data are loaded.

PyTorch is not loaded either, unless the architecture has a check of its own (``Sharing.misfits``): its class is
imported for that.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mtl_cli.errors import ConfigError, Problem, UnknownComponent
from mtl_cli.schema.config import RunConfig
from mtl_cli.schema.cross_checks import check_together
from mtl_cli.schema.key_hints import Origin, with_known_name, with_origin
from mtl_cli.schema.parts import read_parts


def validate(raw: Mapping[str, Any], origin: Origin = lambda _: None) -> RunConfig:
    """Checks a whole configuration.

    Args:
        raw: Plain mappings, lists and values, as composed.
        origin: Where a key path was set (``command line``, ``conf/task/mine.yaml, line 7``), for the messages.

    Returns:
        The configuration with every default filled in.

    Raises:
        ConfigError: Every mistake, each with its key path, origin, value and the nearest known name.
    """
    found = _load_plugins(raw.get("plugins"))  # first: they may register components that other keys name
    parts, problems = read_parts(raw)
    if found:  # what nobody has registered may be in the module that cannot be imported
        problems = [problem for problem in problems if not isinstance(problem, UnknownComponent)]
    found += [*problems, *check_together(parts)]
    data, top, kept = parts.data, parts.top, parts.kept
    if found or data is None or kept is None:  # None only where something is wrong
        raise ConfigError([with_origin(with_known_name(p, raw), origin) for p in dict.fromkeys(found)])
    if data.mixing == "annealed" and data.anneal_epochs is None:
        data = replace(data, anneal_epochs=top["trainer"].max_epochs)
    return RunConfig(
        data=data, sources=parts.sources, input_dim=top["input_dim"], shared_dim=top["shared_dim"], tasks=kept,
        left_out={name: task for name, task in parts.tasks.items() if name not in kept}, trainer=top["trainer"],
        monitor=top["monitor"], seed=top["seed"], resume=top["resume"], init_from=top["init_from"],
        freeze=parts.freeze, dry_run=top["dry_run"], loss_scale=parts.loss_scale, loggers=parts.loggers,
        plugins=tuple(top["plugins"]),
        **{group: component for group, component in parts.components.items() if component is not None},
    )  # fmt: skip


def _load_plugins(plugins: Any) -> list[Problem]:
    """Imports the user's own modules, which register what is in them."""
    found = []
    for module in plugins if isinstance(plugins, list) else []:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            found.append(Problem("plugins", f"cannot import '{module}' ({error})", _how_to_find(error.name)))
        except Exception as error:  # whatever a module of the user's may raise
            found.append(Problem("plugins", f"cannot import '{module}' ({type(error).__name__}: {error})"))
    return found


def _how_to_find(module: str | None) -> str:
    """What makes Python find a module, or the package around it, that it does not find.

    The working folder is not searched unasked: where it is a run from elsewhere, code in it could run.
    """
    if module and (Path(module).is_dir() or Path(f"{module}.py").is_file()):
        return "It is in this folder: write `export PYTHONPATH=$PWD` first."
    return "Is it installed, or on PYTHONPATH?"
