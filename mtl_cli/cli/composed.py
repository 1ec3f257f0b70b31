"""A job as Hydra has composed it, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from mtl_cli import composition
from mtl_cli.cli import session
from mtl_cli.errors import ConfigError, Problem
from mtl_cli.schema import RunConfig, validate, with_own_options, with_tasks_by_name


@dataclass(frozen=True)
class Job:
    """A job whose configuration was checked.

    Args:
        config: The configuration.
        settings: The same as plain mappings, as the run's config.yaml has it: its tasks by their names, and the options
            of components from outside the package.
        overrides: Of the command line.
        folder: Its folder.
        number: Its place in a sweep; None for a single run.
    """

    config: RunConfig
    settings: dict[str, Any]
    overrides: list[str]
    folder: Path
    number: int | None = None


def composed_job(composed: DictConfig) -> Job:
    """The job that Hydra has composed.

    Raises:
        ConfigError: Every mistake in its configuration.
    """
    context, overrides = HydraConfig.get(), given_overrides()
    folders = session.current().folders or composition.search_path(context.runtime.config_sources)
    choices: Any = OmegaConf.to_container(context.runtime.choices)
    if isinstance(composed.get("logger"), DictConfig):  # Hydra leaves out what is chosen as a list
        choices["logger"] = list(composed.logger)
    files = composition.composed_files(folders, choices)
    composition.check_headers(composed, files)
    groups = composition.config_groups(folders)
    origin = composition.origin_of(overrides, files, groups)
    settings = composition.plain(composed, origin, composition.unset(files, overrides, groups))
    if not settings.get("tasks") and not any(o.startswith("task=") for o in overrides):
        raise no_task(groups)
    number = context.job.num if context.mode == RunMode.MULTIRUN else None
    config = validate(settings, origin)  # as it is written: its messages name the places
    settings = with_own_options(with_tasks_by_name(settings))
    return Job(config, settings, overrides, Path(context.runtime.output_dir), number)


def given_overrides() -> list[str]:
    """The overrides of the job that Hydra has composed, as the user wrote them."""
    return composition.as_written(composition.unresolved(HydraConfig.get().overrides.task))  # type: ignore[arg-type]


def no_task(groups: Mapping[str, list[str]]) -> ConfigError:
    """What to tell if nobody says which tasks to train.

    Args:
        groups: The choices of each config group.
    """
    known = groups["task"]
    hint = f"Known: {', '.join(known)}. Example: mtl-train task={'digits' if 'digits' in known else known[0]}"
    return ConfigError(Problem("task", "must be chosen", hint))
