"""What a method on gradients needs is asked for before training: shared parameters, packages, common rows."""

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from worlds import make_learner, three_kinds

from mtl_cli.build.model_checks import check_balancing, check_buffers
from mtl_cli.errors import ConfigError
from mtl_cli.registry import BALANCINGS, SHARINGS
from mtl_cli.schema import validate
from mtl_cli.tasks.binary import Binary

CONFIG = {
    "data": {"source": "table", "path": "people.csv"},
    "tasks": {"a": {"kind": "regression"}, "b": {"kind": "binary"}},
    "encoder": {"name": "mlp"},
    "sharing": {"name": "hard"},
    "balancing": {"name": "equal"},
    "optimizer": {"name": "adamw"},
    "scheduler": {"name": "constant"},
    "trainer": {},
}
METHODS = [n for n in BALANCINGS.names() if BALANCINGS.load(n).needs_shared]
TOGETHER = np.array([[True, True], [False, True]])  # which rows have labels of which task
APART = np.array([[True, False], [False, True]])


def _refusal(name, parameters, labelled, **options):
    with pytest.raises(ConfigError) as caught:
        check_balancing(name, BALANCINGS.build(name, 3, **options), parameters, labelled)
    return str(caught.value)


@pytest.mark.parametrize("name", METHODS)
def test_frozen_encoder_is_refused_by_every_method_that_needs_its_gradients(name):  # BAL-10
    parameters = make_learner(three_kinds(), balancing=name).parameters
    check_balancing(name, BALANCINGS.build(name, 3), parameters, TOGETHER)
    parameters = make_learner(three_kinds(), balancing=name, freeze=["encoder"]).parameters
    assert _refusal(name, parameters, TOGETHER) == (
        f"balancing: '{name}' works on gradients of shared parameters, and all of them are frozen. "
        "Use a method that weights losses, such as balancing=equal, or freeze less."
    )


def test_a_method_on_gradients_is_refused_where_tasks_share_parts_of_parameters_alone():
    parameters = make_learner([Binary(classes=["no", "yes"])] * 2, sharing="aitm").parameters
    assert _refusal("mgda", parameters, TOGETHER) == (
        "balancing: 'mgda' works on gradients of shared parameters, and here tasks share only parts of parameters "
        "whose other parts are those of one task. Use a method that weights losses, such as balancing=equal, or "
        "another architecture, such as sharing=hard."
    )


@pytest.mark.parametrize("name", BALANCINGS.names())
def test_what_remembers_wide_numbers_is_refused_where_there_are_none(name):
    balancing = BALANCINGS.build(name, 3)
    wide = any(buffer.dtype == torch.float64 for buffer in balancing.state_dict().values())
    check_buffers(name, balancing, torch.device("cuda"))
    if not wide:
        check_buffers(name, balancing, torch.device("mps"))
        return
    with pytest.raises(ConfigError) as caught:
        check_buffers(name, balancing, torch.device("mps"))
    assert str(caught.value).startswith(
        f"balancing: '{name}' remembers 64-bit numbers, and trainer.device=mps has none"
    )


def test_frozen_encoder_is_fine_for_methods_that_weight_losses():
    parameters = make_learner(three_kinds()).parameters
    parameters.shared.clear()
    check_balancing("equal", BALANCINGS.build("equal", 3), parameters, APART)


def test_features_of_tasks_that_share_no_row_are_refused():  # BAL-11
    parameters = make_learner(three_kinds()).parameters
    check_balancing("graddrop", BALANCINGS.build("graddrop", 3), parameters, APART)
    assert _refusal("graddrop", parameters, APART, gradients_on="features") == (
        "balancing.gradients_on: 'features': 'graddrop' needs training rows, or tokens, with labels for two tasks, and "
        "there are none. Write balancing.gradients_on=parameters, with which every method takes rows of one task each."
    )


def test_package_that_is_not_installed_is_named_before_anything_is_read(monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "torchjd" else found(name, *rest)
    )
    with pytest.raises(ConfigError) as caught:
        validate({**CONFIG, "balancing": {"name": "torchjd"}})
    assert str(caught.value) == (
        "balancing: 'torchjd' needs the package torchjd, which is not installed. "
        'Install it: pip install "mtl-train[torchjd]".'
    )


@pytest.mark.parametrize("sharing", SHARINGS.names())
def test_gradients_of_features_are_refused_where_each_task_has_its_own(sharing):  # BAL-11
    config = {**CONFIG, "balancing": {"name": "mgda", "gradients_on": "features"}, "sharing": {"name": sharing}}
    if SHARINGS.load(sharing).common_features:
        validate(config)
        return
    with pytest.raises(ConfigError) as caught:
        validate(config)
    if SHARINGS.load(sharing).shares:
        assert f"'features' are not the same for all tasks with '{sharing}'" in str(caught.value)
        assert "use sharing=hard or hyper." in str(caught.value)


def test_what_gradients_of_features_need_is_what_the_configuration_says():  # BAL-11
    text = (Path(__file__).parents[2] / "configs/config.yaml").read_text(encoding="utf-8").replace("\n  #", "")
    methods, sharings = re.search(
        r"gradients_on=features .* Methods: ([\w, ]+)\. It needs sharing=([\w ]+),", text
    ).groups()
    for name in BALANCINGS.names():
        given = {**CONFIG, "balancing": {"name": name, "gradients_on": "features"}}
        if name in methods.split(", "):
            validate(given)
            continue
        with pytest.raises(ConfigError, match=re.escape(f"It is an option of balancing={methods}.")):
            validate(given)
    assert sharings.split(" or ") == [name for name in SHARINGS.names() if SHARINGS.load(name).common_features]
    with pytest.raises(ConfigError, match=r"Write .* or trainer\.accumulate_grad_batches=1\."):
        validate(
            {
                **CONFIG,
                "balancing": {"name": "mgda", "gradients_on": "features"},
                "trainer": {"accumulate_grad_batches": 2},
            }
        )
