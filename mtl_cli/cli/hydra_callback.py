"""What is done when a sweep starts: its folder is remembered, and the command line wins over an experiment's values."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict, read_write

from mtl_cli import composition
from mtl_cli.cli import hydra_launcher, session
from mtl_cli.commands.entry import say
from mtl_cli.errors import Problem
from mtl_cli.schema import best_by, is_higher_better
from mtl_cli.sweep.grouping import as_choices, groups_to_train
from mtl_cli.sweep.jobs import override_values

_BASIC = "hydra._internal.core_plugins.basic_"
_OWN = {"sweeper": f"{_BASIC}sweeper", "launcher": hydra_launcher.MODULE}


class SweepCallback(Callback):
    """Hydra calls it when a sweep starts."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:  # noqa: ARG002
        """Notes the folder, absolute: jobs must not depend on the working directory. Makes the sweeper ready."""
        sweep = session.current().sweep
        sweep.folder = Path(config.hydra.sweep.dir).absolute()
        sweep.in_this_process = _is_our_own(config, "launcher")
        _prepare_values(config)
        _prepare_search(config)

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:  # noqa: ARG002
        """Keeps a failed job from Hydra, which would print a line of its own; its failure is recorded already.

        Only where jobs run in this process one after the other: else whoever started them must be told. There Hydra
        would also keep the configurations of all jobs until the end of the sweep, and nobody reads them.
        """
        ours = _is_our_own(config, "sweeper") and _is_our_own(config, "launcher")
        if not ours or config.hydra.mode != RunMode.MULTIRUN:
            return
        job_return.cfg = job_return.hydra_cfg = None
        if job_return.status == JobStatus.FAILED:
            job_return.status, job_return.return_value = JobStatus.COMPLETED, None


def _prepare_values(config: DictConfig) -> None:
    """Makes the values that an experiment sweeps over (``hydra.sweeper.params``) ready for Hydra.

    They are dropped where the command line gives the key: Hydra would run one job for each of them, all with the
    command line's value. A word for groups of tasks (``only: every_pair``) becomes those groups, unless some of them
    could not be judged by what is monitored; a list of ``only`` is then of the tasks to group. The keys may be such as
    no file lists, as on the command line.
    """
    params = config.hydra.sweeper.get("params")
    groups = _groups(str((params or {}).get("only")), config)
    if groups:
        _leave_to_the_sweep("only", config)
    given = override_values(list(config.hydra.overrides.task))
    for key in [key for key in params or {} if str(key).lstrip("+") in given]:
        with read_write(config.hydra), open_dict(config.hydra):
            del params[key]
    if groups and "only" not in given:
        _refuse_monitor_of_one_task(groups, config, {**given, **(params or {})})
        with read_write(config.hydra):
            config.hydra.sweeper.params.only = as_choices(groups)
    if params and _is_our_own(config, "sweeper"):
        plain: Any = OmegaConf.to_container(config.hydra.sweeper.params, resolve=False)
        choices = composition.config_groups(session.current().folders)
        keys = {key: composition.forced(f"{key}=", choices).partition("=")[0] for key in plain}
        with read_write(config.hydra):
            config.hydra.sweeper.params = {keys[key]: value for key, value in plain.items()}


def _prepare_search(config: DictConfig) -> None:
    """Tells a sweeper that searches which way is better, and that a failed job is no reason to stop."""
    overrides: Any = OmegaConf.to_container(config.hydra.overrides.hydra, resolve=False)
    set_by_user = {override.lstrip("+").partition("=")[0] for override in overrides}
    score = best_by(str(config.get("monitor", "mean")), OmegaConf.select(config, "trainer.checkpoint.monitor"))
    better = "maximize" if is_higher_better(score) else "minimize"
    for key, value in {"direction": better, "max_failure_rate": 1.0}.items():
        if key in config.hydra.sweeper and f"hydra.sweeper.{key}" not in set_by_user:
            with read_write(config.hydra):
                config.hydra.sweeper[key] = value


def _groups(word: str, config: DictConfig) -> list[tuple[str, ...]]:
    """The groups of tasks that a word of ``only`` stands for; none for any other word, or where there are no tasks yet.

    They are of the tasks of ``only`` where that is a list. A group of helpers alone serves no task, and a task that is
    made of others, or comes after one, needs these.
    """
    tasks: Any = OmegaConf.to_container(config.tasks) if config.get("tasks") is not None else {}
    named = {str(task.get("name")): task for task in tasks} if isinstance(tasks, list) else tasks
    options = {str(name): given if isinstance(given, dict) else {} for name, given in named.items()}

    def needs(task: str) -> list[str]:
        factors, earlier = options[task].get("product_of") or [], options[task].get("after")
        return [*map(str, factors), *([] if earlier is None else [str(earlier)])]

    only = config.get("only")
    among = list(options) if only is None else list(map(str, only)) if isinstance(only, ListConfig) else []
    if not set(among) <= set(options):
        return []  # the jobs say which of them there is not
    return [
        group
        for group in groups_to_train(word, [task for task in options if task in among]) or []
        if not all(options[task].get("auxiliary") is True for task in group)
        if all(other in group for task in group for other in needs(task))
    ]


def _leave_to_the_sweep(key: str, config: DictConfig) -> None:
    """Takes an override with one value for all jobs out of those of the command line, for the sweep gives its own."""
    overrides = OverridesParser.create().parse_overrides(composition.unresolved(config.hydra.overrides.task))
    others = [o.input_line for o in overrides if o.key_or_group != key or o.is_sweep_override()]
    with read_write(config.hydra):
        config.hydra.overrides.task = others


def _refuse_monitor_of_one_task(groups: Sequence[Sequence[str]], config: DictConfig, given: Mapping[Any, Any]) -> None:
    """Ends the command if what is monitored is a number of a task that some group is without.

    Args:
        groups: The groups of tasks.
        config: The configuration that they have in common.
        given: The overrides, and what is swept over, which each job checks.

    Raises:
        SystemExit: It is; of what a callback raises Hydra lets nothing else through.
    """
    found = []
    for key in ("monitor", "trainer.checkpoint.monitor", "trainer.early_stopping.monitor"):
        name = str(OmegaConf.select(config, key))
        if str(given.get(key, name)).strip("'\"") != name or name.count("/") != 2:
            continue
        task = name.split("/")[1]
        without = [group for group in groups if task not in group]
        if 0 < len(without) < len(groups):
            what = f"is '{name}', a number of task '{task}', and {len(without)} of the {len(groups)} groups of tasks"
            found.append(Problem(key, f"{what} are without it", f"Write {key}=mean."))
    if found:
        session.current().sweep.folder = None
        say("\n".join(map(str, found)), sys.stderr)
        raise SystemExit(2)


def _is_our_own(config: DictConfig, part: str) -> bool:
    """Whether a part of Hydra is the one that we start by default (of launchers, any of ours), and no plugin's."""
    return str(config.hydra[part].get("_target_")).startswith(_OWN[part])
