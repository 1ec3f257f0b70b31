"""Hydra's launchers of jobs in this process, one after the other or stacked as one model; composed once each."""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from mtl_cli.cli import stacked_jobs
from mtl_cli.cli.composed import Job
from mtl_cli.errors import ConfigError, Problem

# Hydra takes plugins from a package of this name only.
MODULE = "hydra_plugins.mtl_train"
_REMEMBERED = 256  # compositions, until they are used
_PARSER = OverridesParser.create()


@dataclass
class BasicConf:
    """``hydra/launcher=basic``, the default: it has no options."""

    _target_: str = f"{MODULE}.OneByOneLauncher"


class OneByOneLauncher(BasicLauncher):
    """Hydra's basic launcher. Jobs that differ in values alone are not composed from all files again."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self._loader = _ComposedOnce(hydra_context.config_loader)
        hydra_context.config_loader = self._loader  # type: ignore[assignment]
        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        with self._loader.for_use():
            return super().launch(job_overrides, initial_job_idx)


@dataclass
class StackedConf:
    """The options of the launcher.

    Args:
        max_jobs: Most jobs that are trained together.
    """

    _target_: str = f"{MODULE}.StackedLauncher"
    max_jobs: int = 32


class StackedLauncher(Launcher):
    """Trains jobs together where it can, the others one after the other as Hydra's basic launcher does."""

    def __init__(self, max_jobs: int) -> None:
        self._max_jobs = max_jobs

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        if self._max_jobs < 1:  # not where it is made: there Hydra would tell of it in its own words
            raise ConfigError(Problem("hydra.launcher.max_jobs", f"must be at least 1, got {self._max_jobs}"))
        self._loader = _ComposedOnce(hydra_context.config_loader)
        hydra_context.config_loader = self._loader  # type: ignore[assignment]
        self._context, self._function, self._config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        setup_globals()
        Path(str(self._config.hydra.sweep.dir)).mkdir(parents=True, exist_ok=True)
        with self._loader.for_use():
            configs = [self._compose(overrides, initial_job_idx + i) for i, overrides in enumerate(job_overrides)]
        jobs, returns = self._prepared(configs)
        returns |= self._trained_together(configs, jobs)
        for i, config in enumerate(configs):
            if i not in returns:
                returns[i] = run_job(
                    hydra_context=self._context, task_function=self._function, config=config,
                    job_dir_key="hydra.sweep.dir", job_subdir_key="hydra.sweep.subdir",
                )  # fmt: skip
        return [returns[i] for i in range(len(configs))]

    def _prepared(self, configs: Sequence[DictConfig]) -> tuple[dict[int, Job], dict[int, JobReturn]]:
        """The jobs that may be trained together, and the ends of those that are mistaken, by their positions."""
        jobs: dict[int, Job] = {}
        returns: dict[int, JobReturn] = {}
        for i, config in enumerate(configs):
            if _may_be_stacked(config):
                with _context_of(config):
                    job = stacked_jobs.prepare(config)
                if isinstance(job, Exception):
                    returns[i] = self._ended(config, None, job)
                else:
                    jobs[i] = job
        return jobs, returns

    def _trained_together(self, configs: Sequence[DictConfig], jobs: dict[int, Job]) -> dict[int, JobReturn]:
        """Trains those of the jobs that suit each other, group by group; gives their ends by their positions."""
        returns: dict[int, JobReturn] = {}
        positions = list(jobs)
        for group in stacked_jobs.groups(list(jobs.values()), self._max_jobs):
            members = [positions[place] for place in group]
            for i in members:
                self._context.callbacks.on_job_start(config=configs[i], task_function=self._function)
            ended = stacked_jobs.train([jobs[i] for i in members])
            returns |= {i: self._ended(configs[i], *end) for i, end in zip(members, ended, strict=True)}
        return returns

    def _compose(self, overrides: Sequence[str], number: int) -> DictConfig:
        config = self._context.config_loader.load_sweep_config(self._config, list(overrides))
        with open_dict(config):
            config.hydra.job.id = config.hydra.job.num = number
        return config

    def _ended(self, config: DictConfig, score: float | None, error: Exception | None) -> JobReturn:
        overrides = OmegaConf.to_container(config.hydra.overrides.task, resolve=False)
        status = JobStatus.COMPLETED if error is None else JobStatus.FAILED
        ended = JobReturn(
            overrides=overrides,  # type: ignore[arg-type]
            working_dir=str(Path.cwd()), task_name=config.hydra.job.name, status=status,
        )  # fmt: skip
        ended.return_value = score if error is None else error
        self._context.callbacks.on_job_end(config=config, job_return=ended)
        return ended


class _ComposedOnce:
    """A configuration loader that composes jobs which choose the same files once, and each of them not twice.

    Jobs that differ in values alone are copies of the first of them, with other values. Before a sweeper launches
    anything it composes every job to see whether it can be, and throws it away: of those jobs it gets the first one.
    """

    def __init__(self, loader: Any) -> None:
        self._loader = loader
        self._known: dict[tuple[str, ...], DictConfig] = {}
        # Of each choice of keys the first job: to look at, pickled (a third of a copy's time), and its overrides.
        self._firsts: dict[tuple[str, ...], tuple[DictConfig, bytes, list[str]]] = {}
        self._used = False

    @contextmanager
    def for_use(self) -> Iterator[None]:
        """While it is open, what is composed is a job's own."""
        self._used = True
        try:
            yield
        finally:
            self._used = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def load_sweep_config(self, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        key = tuple(sweep_overrides)
        if key in self._known:
            return self._known.pop(key)
        keys = tuple(line.partition("=")[0] if line.startswith("++") else line for line in sweep_overrides)
        values = self._values(keys, sweep_overrides)
        if values is not None:
            first, pickled, _ = self._firsts[keys]
            return self._copy(pickled, values, sweep_overrides) if self._used else first
        config: DictConfig = self._loader.load_sweep_config(master_config, sweep_overrides)
        if _are_apart(keys):
            pickled = pickle.dumps(config)
            self._firsts[keys] = pickle.loads(pickled), pickled, list(sweep_overrides)
        if not self._used and len(self._known) < _REMEMBERED:
            self._known[key] = config
        return config

    def _values(self, keys: tuple[str, ...], overrides: Sequence[str]) -> list[Override] | None:
        """What makes a job differ from the first with these keys; None if there is none, or it cannot be told."""
        if keys not in self._firsts:
            return None
        lines = self._firsts[keys][2]
        other = [(old, new) for old, new in zip(lines, overrides, strict=True) if old != new]
        pairs = [_PARSER.parse_overrides(list(pair)) for pair in other]
        if any(isinstance(override.value(), dict) for pair in pairs for override in pair):
            return None  # Hydra merges mappings: what the first gave would stay
        return [new for _, new in pairs]

    @staticmethod
    def _copy(first: bytes, values: Sequence[Override], overrides: Sequence[str]) -> DictConfig:
        """What Hydra would compose, from the first job."""
        config: DictConfig = pickle.loads(first)  # our own, of this process
        for new in values:
            OmegaConf.update(config, new.key_or_group, new.value(), merge=True, force_add=True)
        with read_write(config.hydra), open_dict(config.hydra):
            config.hydra.overrides.task = list(overrides)
            config.hydra.job.override_dirname = _override_dirname(overrides, config.hydra.job.config.override_dirname)
        return config


def _are_apart(keys: Sequence[str]) -> bool:
    """Whether no key lies within another, so that the order of the overrides does not matter."""
    plain = [key.lstrip("+") for key in keys]
    return not any(a != b and f"{b}.".startswith(f"{a}.") for a in plain for b in plain) and len({*plain}) == len(plain)


def _override_dirname(overrides: Sequence[str], options: DictConfig) -> str:
    """Hydra's ``hydra.job.override_dirname``."""
    counted = [line for line in overrides if line.lstrip("+").partition("=")[0] not in options.exclude_keys]
    return str(options.item_sep).join(sorted(counted)).replace("=", options.kv_sep)


@contextmanager
def _context_of(config: DictConfig) -> Iterator[None]:
    """What Hydra sets up around a job: its folder, and its own part of the configuration for all to see."""
    before = HydraConfig.instance().cfg
    HydraConfig.instance().cfg = config  # type: ignore[assignment]  # not by `set_config`, which copies it
    try:
        folder = Path(os.path.abspath(config.hydra.sweep.dir)) / str(config.hydra.sweep.subdir)  # noqa: PTH100
        with read_write(config.hydra.runtime), open_dict(config.hydra.runtime):
            config.hydra.runtime.output_dir = str(folder)
        folder.mkdir(parents=True, exist_ok=True)
        yield
    finally:
        HydraConfig.instance().cfg = before


def _may_be_stacked(config: DictConfig) -> bool:
    """Whether the job asks Hydra for nothing that belongs to one job at a time."""
    job = config.hydra.job
    return not job.chdir and not job.env_set and config.hydra.output_subdir is None


def register() -> None:
    """Makes the launchers known to Hydra, before it composes anything."""
    StackedLauncher.__module__ = OneByOneLauncher.__module__ = MODULE
    package = MODULE.partition(".")[0]
    try:
        import_module(package)
    except ImportError:  # no plugin is installed
        sys.modules[package] = ModuleType(package)
        sys.modules[package].__path__ = []
    sys.modules[MODULE] = sys.modules[__name__]
    for launcher, name, node in ((OneByOneLauncher, "basic", BasicConf), (StackedLauncher, "stacked", StackedConf)):
        Plugins.instance().register(launcher)  # Hydra has loaded its own plugins by now
        ConfigStore.instance().store(group="hydra/launcher", name=name, node=node, provider="mtl-train")
