"""The model of a run and all that trains it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch

from mtl_cli.balancing.scale import InitialScale
from mtl_cli.build.allocator import keep_freed_memory
from mtl_cli.build.data import Data
from mtl_cli.build.device import autocast_type, choose_device, choose_threads
from mtl_cli.build.model_checks import (
    check_balancing,
    check_buffers,
    check_owners,
    refuse_copied_statistics,
    refuse_statistics,
)
from mtl_cli.errors import ConfigError, Problem
from mtl_cli.loop import Learner, Objective
from mtl_cli.loop.monitor import Monitor
from mtl_cli.loop.step import compile_trunk
from mtl_cli.model import MultiTaskModel
from mtl_cli.model.encoders import EncoderMaker
from mtl_cli.model.freezing import frozen_rows, not_frozen
from mtl_cli.model.ownership import by_rows
from mtl_cli.model.sharing import Sharing
from mtl_cli.optim import FlatParameters, begin_as_in_a_vector
from mtl_cli.processes import ALONE, ProcessGroup
from mtl_cli.registry import BALANCINGS, ENCODERS, LOGGERS, OPTIMIZERS, SCHEDULERS, SHARINGS
from mtl_cli.run.loggers import Logger, RunFacts
from mtl_cli.schema import Component, RunConfig, TaskConfig, is_higher_better, is_per_task
from mtl_cli.seeding import seed_everything
from mtl_cli.tasks import Task
from mtl_cli.types import InputSpec


def build_learner(config: RunConfig, data: Data, total_steps: int, processes: ProcessGroup = ALONE) -> Learner:
    """The model and all that trains it, initialised from the run's seed: alike in all processes that train it."""
    device = choose_device(config)
    seed_everything(config.seed)
    if device.type == "cuda" and processes.size > 1:
        torch.cuda.set_device(device)
    if device.type == "cuda":  # on a CPU the same threads give the same bytes, and the switch loads the compiler stack
        if config.trainer.deterministic:  # products on a GPU are repeatable only with a workspace of fixed size
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(config.trainer.deterministic)
    model = build_model(
        config,
        data.spec,
        data.features.input_dim,
        [t.kind.num_outputs for t in data.tasks],
        [t.name for t in data.tasks],
    ).to(device)
    names = [task.name for task in data.tasks]
    balancing = BALANCINGS.build(config.balancing.name, len(names), **_per_task_lists(config.balancing, data.tasks))
    check_buffers(config.balancing.name, balancing, device)
    balancing.to(device)
    balancing.draw_as_run(config.seed)
    check_owners(model)
    model.freeze(config.freeze)
    refuse_copied_statistics(model)
    if processes.size > 1:
        refuse_statistics(model)
    parameters = FlatParameters(model.trained())
    check_balancing(config.balancing.name, balancing, parameters, data.labelled("train"))
    optimizers = [OPTIMIZERS.build(config.optimizer.name, parameters, **config.optimizer.options)]
    if balancing.has_parameters:
        own = FlatParameters(by_rows(balancing.parameters(), len(names)))
        options = dict(config.optimizer.options)
        if "weight_decay" in options:
            options["weight_decay"] = 0.0  # decay would pull what a method has learnt to 0
        optimizers.append(OPTIMIZERS.build(config.optimizer.name, own, **options))
    torch.set_num_threads(choose_threads(config, model))
    keep_freed_memory()
    learner = Learner(
        model, Objective([t.kind for t in data.tasks], device, model.ordered()), balancing, parameters, optimizers,
        SCHEDULERS.build(config.scheduler.name, total_steps, **config.scheduler.options),
        clip=config.trainer.gradient_clip_val,
        piece=config.data.batch_size if config.trainer.accumulate_grad_batches > 1 else None,
        autocast=autocast_type(config),
        loss_scale=InitialScale(len(names)).to(device) if config.loss_scale == "initial" else None,
        processes=processes,
    )  # fmt: skip
    if config.trainer.compile:
        compile_trunk(learner)
    return learner


def build_model(
    config: RunConfig, spec: InputSpec, input_dim: int, output_dims: Sequence[int], names: Sequence[str]
) -> MultiTaskModel:
    """The model of a configuration, for data of the given shape."""
    sharing = build_sharing(config, spec, names)
    options = [config.tasks[name].common for name in names]
    products = {
        position: [names.index(factor) for factor in own.product_of]
        for position, own in enumerate(options)
        if own.product_of is not None
    }
    hidden = [own.hidden for own in options]
    return MultiTaskModel(input_dim, output_dims, config.shared_dim, sharing=sharing, hidden=hidden, products=products)


def place_as_trained(config: RunConfig, model: MultiTaskModel) -> None:
    """Has the parameters of a run's model lie in memory as while it was trained, that it computes the same bits."""
    owners = model.owners()
    frozen = frozen_rows(model, owners, config.freeze)
    begin_as_in_a_vector(owned.parameter for owned in not_frozen(model, owners, frozen))


def build_sharing(config: RunConfig, spec: InputSpec, names: Sequence[str]) -> Sharing:
    """The part of the model before the heads, of those of the tasks ``names`` that have a head."""
    build_encoder = partial(ENCODERS.build, config.encoder.name, **config.encoder.options)
    make_encoder = EncoderMaker(build_encoder, spec, config.shared_dim)
    with_head = tasks_with_head(config, names)
    facts: list[Any] = [make_encoder, with_head]
    if SHARINGS.load(config.sharing.name).chain == "after":
        before = [config.tasks[name].common.after if name in config.tasks else None for name in with_head]
        facts.append([None if name is None else with_head.index(name) for name in before])
    sharing: Sharing = SHARINGS.build(config.sharing.name, *facts, **config.sharing.options)
    return sharing


def tasks_with_head(config: RunConfig, names: Sequence[str]) -> list[str]:
    """Those of the tasks that are no products of others."""
    return [name for name in names if name not in config.tasks or config.tasks[name].common.product_of is None]


def build_loggers(config: RunConfig, run: RunFacts) -> dict[str, Logger]:
    """The trackers that were chosen, by name; nothing is opened yet."""
    return {name: LOGGERS.build(name, run, **chosen.options) for name, chosen in config.loggers.items()}


def build_monitor(name: str, tasks: Mapping[str, TaskConfig]) -> Monitor:
    """The number of that name, with its direction."""
    return Monitor(name, is_higher_better(name, tasks))


def _per_task_lists(component: Component, tasks: Sequence[Task]) -> dict[str, Any]:
    """Options by task name turned into lists in task order; a task that is not named in a mapping gets 1.

    A list without names is of all tasks but the auxiliary ones.

    Raises:
        ConfigError: A list names only tasks that are left out.
    """
    options, names = dict(component.options), [task.name for task in tasks]
    main = [i for i, task in enumerate(tasks) if not task.auxiliary]
    for key, option in BALANCINGS.options(component.name).items():
        value = options[key]
        if not is_per_task(option.annotation):
            continue
        if isinstance(value, Mapping):
            options[key] = [float(value.get(name, 1.0)) for name in names]
        else:
            options[key] = [names.index(name) for name in value if name in names] if value else main
            if not options[key]:
                raise ConfigError(Problem(f"balancing.{key}", f"only={list(names)} leaves none of {value}"))
    return options
