"""All mistakes of a configuration are found at once, whatever types the wrong values have."""

import pytest

from mtl_cli.errors import ConfigError
from mtl_cli.schema import validate

FINE = {
    "data": {"source": "table", "path": "people.csv"},
    "tasks": {"buys": {"kind": "binary"}, "income": {"kind": "regression"}},
    **{
        group: {"name": name}
        for group, name in {
            "encoder": "mlp", "sharing": "hard", "balancing": "equal", "optimizer": "adamw", "scheduler": "constant",
        }.items()
    },
}  # fmt: skip
NAME_RULE = (
    "Allowed: letters, digits, _, -, + and spaces, not starting with a digit, and not loss, mean, worst. "
    "The column goes into `target`."
)


def _mistakes(**changes):
    with pytest.raises(ConfigError) as caught:
        validate({**FINE, **changes})
    return str(caught.value).splitlines()


def test_what_is_right_is_filled_in():
    config = validate({**FINE, "only": ["buys"], "freeze": "encoder"})
    assert (list(config.tasks), list(config.left_out), config.freeze) == (["buys"], ["income"], ("encoder",))
    assert config.trainer.max_epochs == 50


def test_rules_between_keys_are_skipped_where_one_of_them_is_wrong():
    """What is monitored is judged by the tasks, and they are not known while one of them is wrong."""
    assert _mistakes(monitor="val/buys/accuracy", tasks={"buys": {"kind": "binar"}}) == [
        "tasks.buys.kind: unknown kind 'binar'. Did you mean 'binary'?"
    ]
    assert _mistakes(monitor="val/buys/accurcy") == [
        "monitor: there is no number 'val/buys/accurcy' to monitor. Did you mean 'val/buys/accuracy'?"
    ]


def test_tasks_that_only_leaves_out_are_named_with_those_that_need_them():
    tasks = {
        "click": {"kind": "binary"},
        "buy": {"kind": "binary"},
        "both": {"kind": "binary", "product_of": ["click", "buy"]},
    }
    assert _mistakes(tasks=tasks, only=["both", "click"]) == [
        "only: leaves out 'buy', which tasks.both.product_of names. Keep 'buy' too, or leave 'both' out."
    ]


_CHAIN = {
    "click": {"kind": "binary"},
    "buy": {"kind": "binary", "labelled": False},
    "both": {"kind": "binary", "product_of": ["click", "buy"]},
}


def test_only_keeps_what_trains_a_task_without_labels():
    assert _mistakes(tasks=_CHAIN, only=["click", "buy"]) == [
        "only: leaves out 'both', without which nothing trains 'buy'. Keep 'both' too, or leave 'buy' out."
    ]
    assert list(validate({**FINE, "tasks": _CHAIN, "only": ["click"]}).tasks) == ["click"]


def test_task_without_labels_has_no_number_to_monitor():
    assert _mistakes(tasks=_CHAIN, monitor="val/buy/auroc") == [
        "monitor: there is no number 'val/buy/auroc' to monitor. Did you mean 'val/both/auroc'?"
    ]


def test_freeze_that_is_no_text():
    assert _mistakes(freeze=3, balancing={"name": "pcgrad"}) == ["freeze: must be text or a list, got 3."]


def test_name_twice_in_a_list_of_tasks_that_has_a_text_before_it():
    buys = {"name": "buys", "kind": "binary"}
    assert _mistakes(tasks=["income", buys, buys]) == [
        "tasks[0]: must be a mapping with a name, got 'income'. Example: {name: income, kind: binary}.",
        "tasks[2]: the name 'buys' is taken by tasks[1].",
    ]


@pytest.mark.parametrize("number", [25400, 2.5, float("inf")])
def test_number_for_the_name_of_a_task(number):
    wrong = f"tasks.{number}: cannot be the name of a task, got {number}. {NAME_RULE}"
    tasks = {number: {"kind": "binary"}, "buys": {"kind": "binary"}}
    assert _mistakes(tasks=tasks) == [wrong]
    assert _mistakes(tasks=tasks, only=[str(number)]) == [wrong]
    assert _mistakes(tasks=tasks, only=["buyz"]) == [wrong, "only: no task 'buyz'. Did you mean 'buys'?"]
    assert _mistakes(tasks=tasks, balancing={"name": "fixed", "weights": {"buyz": 2}}) == [
        wrong,
        "balancing.weights.buyz: no task 'buyz'. Did you mean 'buys'?",
    ]


@pytest.mark.parametrize("size", [[], [8], [8, 8, 3]], ids=str)
def test_size_of_images_is_two_numbers(size):
    wrong = f"data.image.size: must be [height, width], got {size}. Write null for images as they are stored."
    assert _mistakes(data={**FINE["data"], "image": {"size": size}}) == [wrong]


@pytest.mark.parametrize("pieces", [[], [5], [3, 4, 5], [5, 3]], ids=str)
def test_pieces_of_words_are_from_shortest_to_longest(pieces):
    wrong = f"data.text.pieces: must be [shortest, longest], got {pieces}. Write null for none."
    assert _mistakes(data={**FINE["data"], "text": {"pieces": pieces}}) == [wrong]
    assert _mistakes(data={"sources": {"shop": {"path": "shop.csv"}}, "text": {"pieces": pieces}}) == [wrong]


def test_pieces_of_one_length_and_none_are_right():
    for pieces in ([4, 4], None):
        assert validate({**FINE, "data": {**FINE["data"], "text": {"pieces": pieces}}}).data.text.pieces == pieces


def test_length_of_a_list_with_wrong_numbers_is_not_told():
    wrong = "data.image.size[0]: must be at least 1, got 0."
    assert _mistakes(data={**FINE["data"], "image": {"size": [0]}}) == [wrong]
