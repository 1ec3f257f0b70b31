"""The model of a run and all that trains it."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mtl_cli.balancing import Balancing, GradientBalancing
from mtl_cli.balancing.scale import InitialScale
from mtl_cli.build.allocator import keep_freed_memory
from mtl_cli.build.data import Data
from mtl_cli.errors import ConfigError, Problem
from mtl_cli.loop import Learner, Objective
from mtl_cli.loop.monitor import Monitor
from mtl_cli.loop.step import compile_trunk
from mtl_cli.loop.unsaved import unregistered
from mtl_cli.model import MultiTaskModel
from mtl_cli.model.encoders import Encoder, EncoderMaker
from mtl_cli.model.encoders.base import VmapStack, run_stages, stage_widths
from mtl_cli.model.ownership import by_rows, find_flaw
from mtl_cli.model.sharing import Sharing
from mtl_cli.model.statistics import layers_over_rows
from mtl_cli.optim import FlatParameters
from mtl_cli.processes import ALONE, ProcessGroup, local_rank, local_size, size
from mtl_cli.registry import (
    BALANCINGS,
    ENCODERS,
    LOGGERS,
    OPTIMIZERS,
    SCHEDULERS,
    SHARINGS,
    describe_component,
    expect_shape,
    from_outside,
)
from mtl_cli.run.loggers import Logger, RunFacts
from mtl_cli.schema import Component, RunConfig, TaskConfig, is_higher_better, is_per_task
from mtl_cli.seeding import seed_everything
from mtl_cli.tasks import Task
from mtl_cli.types import Inputs, InputSpec, Ragged

log = logging.getLogger(__name__)

# Below this many multiply-adds per step a second thread gains little, and with a busy neighbour it costs time.
MANY_OPERATIONS = 200_000_000


def build_learner(
    config: RunConfig,
    data: Data,
    total_steps: int,
    processes: ProcessGroup = ALONE,
) -> Learner:
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


def refuse_statistics(model: MultiTaskModel) -> None:
    """Refuses what makes a row's output depend on the other rows of a process.

    Raises:
        ConfigError: Some layer takes statistics over the rows of a batch.
    """
    for found in layers_over_rows(model):
        if not isinstance(found.layer, nn.SyncBatchNorm):
            what = f"{found.description}, whose statistics would be of each process's rows alone"
            hint = "Use LayerNorm or GroupNorm, or train in one process."
            raise ConfigError(Problem("WORLD_SIZE", what, hint))


def refuse_copied_statistics(model: MultiTaskModel) -> None:
    """Refuses copies of an encoder that would have to keep statistics, of which there is one set for all copies.

    Raises:
        ConfigError: Some layer of such copies keeps statistics of what it sees in training.
    """
    for found in layers_over_rows(model):
        if found.encoder is not None and found.layer.running_mean is not None:
            what = f"{found.description} that keeps statistics, and copies of an encoder, which are computed together, "
            what += "cannot each keep their own"
            hint = "Use LayerNorm or GroupNorm, sharing=hard, or give the encoder a `stack` of its own."
            raise ConfigError(Problem(describe_component(found.encoder), what, hint))


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


def check_owners(model: MultiTaskModel) -> None:
    """Refuses an architecture that says of a parameter nothing or too much: what nobody owns is never trained.

    Raises:
        ConfigError: Some row of a parameter has no owner, or two.
    """
    sharing = model.sharing
    flaw = find_flaw(dict(sharing.named_parameters()), sharing.owners(), len(model.with_head))
    if flaw is not None:
        hint = (
            "Each row (axis 0) of each parameter has one owner, as shared and stacked of mtl_cli.model.ownership give."
        )
        raise ConfigError(Problem(describe_component(sharing), f"its owners() is wrong: {flaw}", hint))


@torch.no_grad()
def check_features(model: MultiTaskModel, inputs: Inputs) -> None:
    """Runs an encoder and a sharing architecture that are none of ours on a few rows, and looks for lost layers.

    Features that are others each time, or with other rows beside them, are told: no evaluation could be repeated.

    Args:
        model: The model.
        inputs: B rows.

    Raises:
        ConfigError: They give something else than features of these rows, or change the rows; names who does.
    """
    sharing = model.sharing
    encoders = [module for module in sharing.modules() if isinstance(module, Encoder | VmapStack)]
    kinds = [module.encoder if isinstance(module, VmapStack) else module for module in encoders]
    if not any(from_outside(type(part)) for part in (sharing, *kinds)):
        return
    training = model.training
    model.eval()
    for message in unregistered(model):
        log.warning("%s", message)
    shape = (kinds[0].positions(inputs) if kinds else len(inputs.numeric), model.shared_dim)
    if encoders and from_outside(type(kinds[0])):
        _check_encoder(kinds[0], encoders[0], inputs, shape)
    features = _given_by(sharing, sharing.forward, inputs)  # not called: a compiled module would be compiled for it
    own = getattr(features, "ndim", 2) == 3  # features for each task
    expect_shape(sharing, "features", features, (len(model.with_head), *shape) if own else shape)
    if from_outside(type(sharing)):
        _tell_of_other_features(sharing, sharing.forward, inputs, features)
    model.train(training)


def _check_encoder(encoder: Encoder, module: nn.Module, inputs: Inputs, shape: tuple[int, int]) -> None:
    """Whether an encoder gives features of a shape, and its stages the same.

    Args:
        encoder: The encoder.
        module: It, or a stack of its copies.
        inputs: The rows.
        shape: (positions, D).
    """
    features = _given_by(encoder, module, inputs)
    of_copies = isinstance(module, VmapStack) or getattr(features, "shape", ())[1:] == shape
    expect_shape(encoder, "features", features[0] if of_copies else features, shape)
    widths = stage_widths(encoder, shape[1])
    staged = features if len(widths) == 1 else run_stages(module, len(widths), inputs, lambda _, x: x)
    if not torch.allclose(staged, features, rtol=1e-3, atol=1e-4, equal_nan=True):
        what = "gives other features by its stages, one after another, than by its forward"
        raise ConfigError(Problem(describe_component(encoder), what, "Override both, or none."))
    _tell_of_other_features(encoder, module.forward, inputs, features)


def _contents(inputs: Inputs) -> list[Tensor]:
    """The tensors that hold the inputs."""
    blocks = (block if isinstance(block, Ragged) else (block,) for block in inputs.blocks.values())
    return [inputs.numeric, inputs.categorical, *chain.from_iterable(blocks)]


def _given_by(who: object, forward: Callable[[Inputs], Tensor], inputs: Inputs) -> Tensor:
    """The features of some rows, from what must not write into them: each evaluation would read others."""
    before = [values.clone() for values in _contents(inputs)]
    features = forward(inputs)
    same = (((now == then) | (then != then)).all() for now, then in zip(_contents(inputs), before, strict=True))
    if not all(map(bool, same)):
        what = "changes the rows that it is given, in place: an evaluation would read others each time"
        raise ConfigError(Problem(describe_component(who), what, "Let it work on what it makes of them."))
    return features


def _tell_of_other_features(who: object, forward: Callable[[Inputs], Tensor], inputs: Inputs, features: Tensor) -> None:
    """Says so where rows get other features (..., B, D) in a second evaluation, or without some of the other rows."""
    rows = len(inputs.numeric)
    some = rows // 2 if features.shape[-2] == rows else 0  # features of tokens stand elsewhere
    if not _alike(forward(inputs), features):
        what, hint = (
            "when it is asked again, in evaluation too",
            "Let it draw, or keep what it saw, only where self.training.",
        )
    elif some > 1 and not _alike(forward(inputs.part(0, some)), features):
        what, hint = "with other rows beside them", "Compute each row by itself; BatchNorm may look at others."
    else:
        return
    told = f"gives other features of the same rows {what}, so that its numbers and predictions cannot be repeated"
    log.warning("%s: %s. %s", describe_component(who), told, hint)


def _alike(some: Tensor, features: Tensor) -> bool:
    """Whether the features of the first rows are those that they have among all."""
    return torch.allclose(some, features[..., : some.shape[-2], :], rtol=1e-3, atol=1e-4, equal_nan=True)


def build_loggers(config: RunConfig, run: RunFacts) -> dict[str, Logger]:
    """The trackers that were chosen, by name; nothing is opened yet."""
    return {name: LOGGERS.build(name, run, **chosen.options) for name, chosen in config.loggers.items()}


def build_monitor(name: str, tasks: Mapping[str, TaskConfig]) -> Monitor:
    """The number of that name, with its direction."""
    return Monitor(name, is_higher_better(name, tasks))


def autocast_type(config: RunConfig) -> torch.dtype | None:
    """Data type of mixed precision, or None."""
    return torch.bfloat16 if config.trainer.precision == "bf16-mixed" else None


def choose_device(config: RunConfig) -> torch.device:
    """The device that the configuration asks for.

    Raises:
        ConfigError: This machine or this build of PyTorch does not have it.
    """
    name = config.trainer.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and size() > 1:  # each process of a machine has its own
        name = f"cuda:{local_rank()}"
    device = torch.device(name)
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}.get(device.type, True)
    if not there or (device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()):
        raise ConfigError(Problem("trainer.device", f"there is no device '{name}' here", "Write trainer.device=cpu."))
    return device


def check_buffers(name: str, balancing: Balancing, device: torch.device) -> None:
    """Whether a device can hold what a method remembers.

    Args:
        name: Of the method.
        balancing: The method.
        device: That trains.

    Raises:
        ConfigError: It cannot.
    """
    if device.type == "mps" and any(buffer.dtype == torch.float64 for buffer in balancing.buffers()):
        what = f"'{name}' remembers 64-bit numbers, and trainer.device=mps has none"
        raise ConfigError(Problem("balancing", what, "Use trainer.device=cpu, or another method."))


def check_balancing(name: str, balancing: Balancing, parameters: FlatParameters, labelled: np.ndarray) -> None:
    """What a method on gradients needs and only the model and the training labels can tell.

    Args:
        name: What the method is registered as.
        balancing: The method.
        parameters: The model's.
        labelled: (P, K) bool, whether each training row or token has a label for each task.

    Raises:
        ConfigError: No parameter is shared as a whole and trained, or gradients of features are asked for and no row
            or token has two labels.
    """
    if balancing.needs_shared and not parameters.shared:
        why, hint = "all of them are frozen", "or freeze less"
        if any(segment.task is None for segment in parameters.segments):
            why = "here tasks share only parts of parameters whose other parts are those of one task"
            hint = "or another architecture, such as sharing=hard"
        what = f"'{name}' works on gradients of shared parameters, and {why}"
        raise ConfigError(
            Problem("balancing", what, f"Use a method that weights losses, such as balancing=equal, {hint}.")
        )
    if not isinstance(balancing, GradientBalancing):
        return
    alone = labelled.shape[1] > 1 and not (labelled.sum(1) > 1).any()
    if balancing.gradients_on == "features" and alone:
        what = f"'features': '{name}' needs training rows, or tokens, with labels for two tasks, and there are none"
        hint = "Write balancing.gradients_on=parameters, with which every method takes rows of one task each."
        raise ConfigError(Problem("balancing.gradients_on", what, hint))


def choose_threads(config: RunConfig, model: nn.Module) -> int:
    """CPU threads: as given, or by the work of a step and the cores this process may use, nothing that varies.

    Several processes on a machine divide its cores among them. ``OMP_NUM_THREADS`` is the most there are. What is
    frozen counts as what is trained: whoever loads the model of a run knows nothing of freezing.
    """
    if config.trainer.threads != "auto":
        return config.trainer.threads
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    most = os.environ.get("OMP_NUM_THREADS", "")
    cores = max(min(cores // local_size(), int(most) if most.isdecimal() else cores), 1)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    operations = 3 * config.data.batch_size * parameters // size()
    return cores if operations >= MANY_OPERATIONS else 1


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
