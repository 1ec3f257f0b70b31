"""What an architecture cannot work with, as far as the configuration says it, is told before any data are read."""

import pytest
from worlds import REFUSED_PAIRS

from mtl_cli.errors import ConfigError, Problem
from mtl_cli.model.encoders.mlp import MLP
from mtl_cli.model.sharing.hard import HardSharing
from mtl_cli.model.sharing.low_rank import LowRankSharing
from mtl_cli.registry import ENCODERS, SHARINGS
from mtl_cli.schema import validate

BINARY = {"kind": "binary"}
PRODUCT = {"buy": {"kind": "binary", "product_of": ["click", "pay"]}, "click": BINARY, "pay": BINARY}
FULL_RANK = "A full rank shares nothing already; see sharing=separate."
WIDTHS = "Choose widths that they divide (shared_dim and those of the encoder), or sharing=cross_stitch."


def _config(sharing, encoder=("mlp", {}), *, tasks=None, **more):
    (encoder_name, encoder_options), (name, options) = encoder, sharing
    return {
        "data": {"source": "table", "path": "nowhere.csv"},
        "tasks": tasks or {"a": {"kind": "regression"}, "b": BINARY},
        "encoder": {"name": encoder_name, **encoder_options}, "sharing": {"name": name, **options},
        "balancing": {"name": "equal"}, "optimizer": {"name": "adamw"}, "scheduler": {"name": "constant"},
        "trainer": {}, **more,
    }  # fmt: skip


def _told(*arguments, **options):
    try:
        validate(_config(*arguments, **options))
    except ConfigError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("name", ["low_rank", "tucker", "tensor_train"])
def test_rank_above_the_number_of_tasks_with_a_head(name):
    message = f"sharing.rank: must be at most the number of tasks (2), got 3. {FULL_RANK}"
    assert _told((name, {"rank": 3})) == message
    assert _told((name, {"rank": 3}), tasks=PRODUCT) == message
    three = {"a": BINARY, "b": BINARY, "c": BINARY}
    assert _told((name, {"rank": 3}), tasks=three) == ""
    assert _told((name, {"rank": 3}), tasks=three, only=["a", "c"]) == message
    assert _told((name, {})) == ""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 4, "experts": 4}, ""),
        (
            {"k": 9, "experts": 4},
            "sharing.experts: must be at least 2 and at least sharing.k (9), got 4. "
            "Write sharing.k=4, or sharing.experts=9.",
        ),
        (
            {"k": 1, "experts": 1},
            "sharing.experts: must be at least 2 and at least sharing.k (1), got 1. With one expert, use sharing=hard.",
        ),
    ],
)
def test_fewer_experts_than_are_chosen(options, message):
    assert _told(("dselect_k", options)) == message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"search_steps": 21}, ""),
        ({"search_steps": None, "warmup_steps": 500}, ""),
        (
            {"search_steps": 20},
            "sharing.search_steps: must be more than sharing.warmup_steps (20), or no branch is ever chosen, got 20. "
            "Write sharing.warmup_steps=2, or search longer.",
        ),
        (
            {"warmup_steps": 400},
            "sharing.search_steps: must be more than sharing.warmup_steps (400), or no branch is ever chosen, got 300. "
            "Write sharing.warmup_steps=30, or search longer.",
        ),
    ],
)
def test_search_that_ends_with_the_warm_up(options, message):
    assert _told(("ltb", options)) == message


@pytest.mark.parametrize(
    ("encoder", "more", "width"),
    [
        (("mlp", {}), {"shared_dim": 10}, 10),
        (("mlp", {"hidden": [15, 7]}), {"shared_dim": 9}, 7),
        (("tabular", {"hidden": [15, 8]}), {"shared_dim": 9}, 8),
        (("conv", {"widths": [3, 5]}), {"shared_dim": 9}, 5),
        (("sequence", {"dim": 4}), {"shared_dim": 9}, 4),
        (("sequence", {"dim": 4, "reach": []}), {"shared_dim": 9}, None),
        (("text", {"dim": 4, "hidden": [12]}), {"shared_dim": 9}, None),  # three texts are as wide as 12
        (("text", {"hidden": [8]}), {"shared_dim": 9}, 8),
        (("fm", {}), {"shared_dim": 9}, None),
    ],
)
def test_subspaces_that_do_not_divide_a_width(encoder, more, width):
    message = "" if width is None else f"sharing.subspaces: 3 do not divide the width {width} of a layer. {WIDTHS}"
    assert _told(("sluice", {"subspaces": 3}), encoder, **more) == message


@pytest.mark.parametrize("encoder", ENCODERS.names())
def test_encoder_without_tables_of_embeddings(encoder):
    stem = (
        f"sharing: 'stem' gives each task embeddings of its own, and encoder={encoder} has no such table. "
        "Use sharing=cgc: shared experts and experts of each task, for any inputs and any encoder."
    )
    esmm = (
        "sharing: 'esmm' has the embeddings of categories, words or tokens in common, and "
        f"encoder={encoder} names none below its layers. Use sharing=hard, where products work as well."
    )
    assert _told(("stem", {}), (encoder, {})) == (stem if ("stem", encoder) in REFUSED_PAIRS else "")
    assert _told(("esmm", {}), (encoder, {}), tasks=PRODUCT) == (esmm if ("esmm", encoder) in REFUSED_PAIRS else "")


def test_they_come_with_all_other_mistakes():
    assert _told(("esmm", {}), ("fm", {}), seed=-1) == (
        "seed: must be in [0, 9.22337e+18], got -1.\n"
        "sharing: 'esmm' needs a task with `product_of`, and there is none. Example: tasks: {buy: {kind: binary, "
        "product_of: [click, conversion]}, ...}. Without such a task, use sharing=hard.\n"
        "sharing: 'esmm' has the embeddings of categories, words or tokens in common, and encoder=fm names none below "
        "its layers. Use sharing=hard, where products work as well."
    )


@pytest.mark.parametrize(
    ("sharing", "encoder", "more", "message"),
    [
        (
            ("low_rank", {"rank": 3}), ("mlp", {}), {"tasks": {"a": BINARY, "b": {"kind": "binery"}}},
            "tasks.b.kind: unknown kind 'binery'. Did you mean 'binary'?",
        ),
        (
            ("low_rank", {"rank": 3}), ("mlp", {}), {"tasks": [1]},
            "tasks[0]: must be a mapping with a name, got 1. Example: {name: income, kind: binary}.",
        ),
        (
            ("sluice", {"subspaces": 3}), ("mlp", {"hidden": ["x"]}), {"shared_dim": 9},
            "encoder.hidden[0]: must be a whole number, got 'x'.",
        ),
        (("sluice", {}), ("mlp", {}), {"shared_dim": "x"}, "shared_dim: must be a whole number, got 'x'."),
        (("sluice", {"subspaces": 0}), ("mlp", {}), {}, "sharing.subspaces: must be at least 1, got 0."),
    ],
)  # fmt: skip
def test_what_is_wrong_already_is_not_judged(sharing, encoder, more, message):
    assert _told(sharing, encoder, **more) == message


@pytest.fixture
def register():
    """Registers classes from outside under ``mine``."""
    yield lambda registry, cls: registry.register("mine")(cls)
    for registry in (SHARINGS, ENCODERS):
        registry._classes.pop("mine", None)


def test_component_from_outside_with_a_check_is_asked(register):
    class Mine(HardSharing):
        def __init__(self, make_encoder, task_names, *, depth: int = 1):
            super().__init__(make_encoder, task_names[:depth])

        @classmethod
        def misfits(cls, options, around):
            if not issubclass(around.encoder, MLP):
                return []
            what = f"is {options['depth']}: {around.encoder_name}, {around.encoder_options['hidden']}, {around.tasks}"
            return [Problem("sharing.depth", what)]

    register(SHARINGS, Mine)
    assert _told(("mine", {"depth": 2}), ("mlp", {"hidden": [5]})) == "sharing.depth: is 2: mlp, [5], 2."
    assert _told(("mine", {}), ("fm", {})) == ""


def test_check_from_outside_that_fails_names_its_class(register):
    class Mine(HardSharing):
        @classmethod
        def misfits(cls, options, around):
            return options["depth"] + around.tasks

    register(SHARINGS, Mine)
    told = _told(("mine", {}))
    assert told.startswith(f"sharing 'mine' ({__name__}.test_check_from_outside_that_fails_names_its_class.<locals>.")
    assert told.endswith(": KeyError: 'depth'. HYDRA_FULL_ERROR=1 shows all of it.")


def test_check_of_an_architecture_is_not_inherited(register):
    class Mine(LowRankSharing):
        def __init__(self, make_encoder, task_names):
            super().__init__(make_encoder, task_names, rank=1)

    register(SHARINGS, Mine)
    assert _told(("mine", {})) == ""


def test_widths_of_an_encoder_are_not_inherited(register):
    class Mine(MLP):
        def __init__(self, spec, shared_dim, *, hidden: int = 5):
            super().__init__(spec, shared_dim, hidden=[hidden])

    register(ENCODERS, Mine)
    assert _told(("sluice", {}), ("mine", {})) == ""
