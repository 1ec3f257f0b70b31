"""A command that is no sweep: one run, which is begun, or gone on with (``resume=``)."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from mtl_cli import composition
from mtl_cli.cli import session
from mtl_cli.cli.composed import Job
from mtl_cli.cli.continuing import forbidden_changes, refuse_changes
from mtl_cli.cli.job_folder import train_in_folder, try_in_folder
from mtl_cli.cli.several_processes import check_for_processes
from mtl_cli.commands.entry import say
from mtl_cli.errors import ConfigError, Problem, RunError, listed
from mtl_cli.paths import expanded
from mtl_cli.run import RunFolder, find_resumable
from mtl_cli.schema import validate, with_own_options, with_tasks_by_name
from mtl_cli.steps import run_alone

log = logging.getLogger("mtl_cli")


def run_single(job: Job) -> float | None:
    """Does what the configuration of one run asks for; gives its score."""
    check_for_processes(job.config)
    _tell_of_a_sweep(job.overrides)
    if job.config.dry_run:
        try_in_folder(job)
        return None
    if job.config.resume is None:
        return run_alone(train_in_folder(job, resume=False))
    if job.config.resume != "auto":
        job = _started_as_stored(job, expanded(job.config.resume))
    folder, resume = _folder_to_train_in(job)
    return run_alone(train_in_folder(replace(job, folder=folder), resume=resume))


def folder_to_resume(flags: Sequence[str], overrides: Sequence[str]) -> Path | None:
    """The folder of ``mtl-train resume=RUN`` without a task: everything else is in the run's own config.yaml."""
    if composition.without_config_dir(flags) or any(o.startswith("task=") for o in overrides):
        return None
    values = [o.partition("=")[2].strip("'\"") for o in overrides if o.startswith("resume=")]
    return None if not values or values[-1] in ("auto", "null") else expanded(values[-1])


def resume_from_folder(folder: Path, overrides: Sequence[str]) -> None:
    """Goes on with a run by its own config.yaml, and what the command line gives beside ``resume=``."""
    run = RunFolder.open(folder)
    settings = with_tasks_by_name(run.read_settings())
    own = [o for o in overrides if not o.startswith("resume=")]
    _check_beside_resume(own)
    _refuse_another_folder(folder, own)
    given = composition.plain(_set_by(own))
    # not by OmegaConf: what stands in a run's file is data, and ${...} in it is text
    settings = _merged(settings, given)
    settings["resume"] = None  # what init_from= of the run itself does not go together with
    config = validate(settings, composition.origin_of(overrides, []))
    settings = with_own_options(settings)  # a run of an older version may lack some
    refuse_changes(folder, settings)
    check_for_processes(config)
    if config.dry_run:
        try_in_folder(Job(config, settings, own, folder))
    else:
        run_alone(train_in_folder(Job(config, settings, run.read_overrides(), folder), resume=True))


def _tell_of_a_sweep(overrides: Sequence[str]) -> None:
    """An experiment that sweeps does so with -m alone."""
    params = HydraConfig.get().sweeper.get("params")
    chosen = [o for o in overrides if o.lstrip("+").startswith("experiment=")]
    if params and chosen:
        what = f"sweeps over {listed([str(key) for key in params], 5)} with -m, and this is one run without it"
        say(f"note: {chosen[-1]} {what}. Write: mtl-train -m {' '.join(overrides)}", sys.stderr)


def _started_as_stored(job: Job, folder: Path) -> Job:
    """The job with what the run in a folder started from, which stays a part of it."""
    init_from = RunFolder.open(folder).read_settings().get("init_from")
    settings = {**job.settings, "init_from": init_from}
    return replace(job, config=replace(job.config, init_from=init_from), settings=settings)


def _folder_to_train_in(job: Job) -> tuple[Path, bool]:
    """The folder for ``resume=`` and whether there is something to go on from."""
    if job.config.resume != "auto":
        path = expanded(str(job.config.resume))
        _refuse_another_folder(path, _hydra_overrides())
        refuse_changes(path, job.settings)
        return path, True
    if (job.folder / "status.json").exists():  # the same fixed hydra.run.dir again
        refuse_changes(job.folder, job.settings)
        return job.folder, True
    folder = None if _is_folder_given() else _unfinished_with(job.settings, job.folder.parent)
    return (job.folder, False) if folder is None else (folder, True)


def _is_folder_given() -> bool:
    """Whether the command line names the run's folder: one, and not a new one each time as with ``${now:...}``."""
    return bool(_given_folders(_hydra_overrides()))


def _hydra_overrides() -> list[str]:
    """What the command line sets of Hydra's own part."""
    return composition.unresolved(HydraConfig.get().overrides.hydra)  # type: ignore[arg-type]


def _given_folders(overrides: Sequence[str]) -> list[str]:
    """The folders that overrides name, each the same every time; the last one counts."""
    named = [o.partition("=")[2] for o in overrides if o.lstrip("+").startswith("hydra.run.dir=")]
    return [value.strip("'\"") for value in named if "${" not in value]


def _refuse_another_folder(folder: Path, overrides: Sequence[str]) -> None:
    """A run goes on in its own folder.

    Raises:
        ConfigError: The command line names another one.
    """
    given = _given_folders(overrides)
    if given and expanded(given[-1]).resolve() != folder.resolve():
        what = f"must be that of resume, in which the run goes on, got '{given[-1]}' beside resume={folder}"
        raise ConfigError(Problem("hydra.run.dir (command line)", what, "Leave it out."))


def _unfinished_with(settings: Mapping[str, Any], root: Path) -> Path | None:
    """The latest unfinished run below a folder that has these settings; says what there is if none has."""
    told: list[str] = []
    for folder in find_resumable(root):
        try:
            changed = forbidden_changes(folder, settings)
        except RunError as error:  # of this one run; another may be the one that is looked for
            told.append(str(error).removesuffix("."))
            continue
        if not changed:
            return folder
        told.append(f"{folder} has another configuration ({', '.join(changed)})")
    if told:
        log.warning("resume=auto: %s; starting anew", listed(told, 3, "; "))
    return None


def _check_beside_resume(overrides: Sequence[str]) -> None:
    """Looks for what cannot be given beside ``resume=RUN`` without a task."""
    groups = composition.config_groups(session.current().folders)
    for override in overrides:
        key, equals, _ = override.lstrip("+").partition("=")
        is_choice = key in groups
        if not equals or override.startswith("~") or is_choice:
            what = f"'{override}' cannot be combined with resume=RUN alone"
            choosing = f"Give the task too: mtl-train task=NAME resume=RUN {override}"
            raise ConfigError(Problem("command line", what, choosing if is_choice else "Write key=value."))
        if key == "init_from":
            what = "cannot be given together with resume, which takes the run's own weights"
            raise ConfigError(Problem("init_from (command line)", what, "Leave one of the two out."))


def _set_by(overrides: Sequence[str]) -> DictConfig:
    """What overrides set, their values read as Hydra reads those of every other command line."""
    given = OmegaConf.create({})
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        OmegaConf.update(given, override.key_or_group, override.value(), force_add=True)
    return given


def _merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Mappings within mappings, the values of ``new`` over those of ``old``."""
    merged = dict(old)
    for key, value in new.items():
        before = merged.get(key)
        merged[key] = _merged(before, value) if isinstance(before, dict) and isinstance(value, dict) else value
    return merged
