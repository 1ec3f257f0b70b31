"""Names to classes, and options that are checked before anything is built."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import torch
from torch import nn
from worlds import inputs

from mtl_cli.balancing import GradientBalancing, LossBalancing
from mtl_cli.errors import ConfigError
from mtl_cli.model.encoders import Encoder
from mtl_cli.model.encoders.mlp import MLP
from mtl_cli.model.sharing.mmoe import MultiGateMixtureOfExperts
from mtl_cli.optim import Optimizer
from mtl_cli.registry import (
    ALL,
    BALANCINGS,
    ENCODERS,
    KINDS,
    LOGGERS,
    OPTIMIZERS,
    REQUIRED,
    SHARINGS,
    Option,
    conform,
    conform_mapping,
    mistakes_in_components,
    options_of,
)
from mtl_cli.run.loggers import Logger
from mtl_cli.tasks.regression import Regression
from mtl_cli.types import (
    Fraction,
    InputSpec,
    NonNegativeInt,
    PerTask,
    Plain,
    Positive,
    PositiveInt,
    ProperFraction,
    Range,
    TaskList,
)

INF, NAN = float("inf"), float("nan")
HUGE = 10**400  # YAML reads it as a whole number


@pytest.fixture
def _cleanup():
    before = {registry.group: dict(registry._classes) for registry in ALL}
    yield
    for registry in ALL:
        registry._classes.clear()
        registry._classes.update(before[registry.group])


@dataclass(frozen=True)
class Inner:
    size: PositiveInt
    name: str | None = None


FITS = [
    (3, int, 3),
    (3, float, 3.0),
    (0.5, float, 0.5),
    (True, bool, True),
    ("x", str, "x"),
    ({"a": [1]}, Any, {"a": [1]}),
    (None, int | None, None),
    (3, int | None, 3),
    ("auto", Literal["auto", "off"], "auto"),
    ("auto", PositiveInt | Literal["auto"], "auto"),
    (2, PositiveInt | Literal["auto"], 2),
    ([1, 2], list[PositiveInt], [1, 2]),
    ([], list[int], []),
    ([1, 2.5], list[float], [1.0, 2.5]),
    ({"a": 1}, dict[str, float], {"a": 1.0}),
    ("x", str | list[str], "x"),
    (["x"], str | list[str], ["x"]),
    ("None", Plain | list[Plain] | None, "None"),  # what a cell of a table may hold
    (None, Plain | list[Plain] | None, None),
    (0, ProperFraction, 0.0),
    (1, Fraction, 1.0),
    (0, NonNegativeInt, 0),
    (HUGE, NonNegativeInt, HUGE),
    ({"size": 2}, Inner, Inner(2)),
    (Inner(2), Inner, Inner(2)),
    ([Inner(2)], list[Inner] | None, [Inner(2)]),
]


@pytest.mark.parametrize(("value", "annotation", "expected"), FITS)
def test_value_that_fits_is_used(value, annotation, expected):
    used, problems = conform(value, annotation, "key")
    assert problems == []
    assert used == expected
    assert type(used) is type(expected)


AS_TEXT = "It is text: leave out the quotes; of the environment, ${oc.decode:${oc.env:NAME}} is a number."

MISFITS = [
    ("3", int, f"key: must be a whole number, got '3'. {AS_TEXT}"),
    ("1e-3", float, f"key: must be a number, got '1e-3'. {AS_TEXT}"),
    ("3", list[int], "key: must be a list, got '3'. Write [3]."),
    (3.0, int, "key: must be a whole number, got 3.0."),
    (True, int, "key: must be a whole number, got True."),
    (True, float, "key: must be a number, got True."),
    (1, bool, "key: must be true or false, got 1."),
    ("yes", bool, "key: must be true or false, got 'yes'."),
    (7, str, "key: must be text, got 7. Write it in quotes."),
    (False, str, "key: must be text, got False. Write it in quotes."),
    (None, int, "key: must be a whole number, got null."),
    ("None", int | None, "key: is the text 'None', not an empty value. Write key=null."),
    ("null", str | None, "key: is the text 'null', not an empty value. Write key=null."),
    ("x", int | None, "key: must be a whole number, got 'x'."),
    ("atuo", Literal["auto", "off"], "key: must be one of auto, off, got 'atuo'. Did you mean 'auto'?"),
    (True, Literal["on", "off"], "key: must be one of on, off, got True."),
    ("atuo", PositiveInt | Literal["auto"], "key: must be a whole number or auto, got 'atuo'. Did you mean 'auto'?"),
    (0, PositiveInt | Literal["auto"], "key: must be at least 1, got 0."),
    (3, list[int], "key: must be a list, got 3. Write [3]."),
    (None, list[int], "key: must be a list, got null."),
    ([1, "x", 0], list[PositiveInt], "key[1]: must be a whole number, got 'x'.\nkey[2]: must be at least 1, got 0."),
    ([1], dict[str, int], "key: must be a mapping, got [1]."),
    ({"a": 1, "b": "x"}, dict[str, int], "key.b: must be a whole number, got 'x'."),
    (3, str | list[str], "key: must be text or a list, got 3."),
    ([3], str | list[str], "key[0]: must be text, got 3. Write it in quotes."),
    (0, Positive, "key: must be greater than 0, got 0.0."),
    (-1, NonNegativeInt, "key: must be at least 0, got -1."),
    (1.0, ProperFraction, "key: must be in [0, 1), got 1.0."),
    (1.5, Fraction, "key: must be in [0, 1], got 1.5."),
    (HUGE, Positive, f"key: must be a number within the range of 64 bits, got {HUGE}."),
    (HUGE, Fraction | None, f"key: must be a number within the range of 64 bits, got {HUGE}."),
    (-HUGE, PositiveInt, f"key: must be at least 1, got {-HUGE}."),
    (INF, Positive, "key: must be finite and greater than 0, got inf."),
    (NAN, Fraction, "key: must be in [0, 1], got nan."),
    (NAN, Annotated[float, Range()], "key: must be a finite number, got nan."),
    ({"sizes": 2}, Inner, "key.sizes: unknown key. Did you mean 'size'?\nkey.size: must be given."),
    ([], Inner, "key: must be a mapping, got []."),
]


@pytest.mark.parametrize(("value", "annotation", "message"), MISFITS)
def test_value_that_does_not_fit_is_refused(value, annotation, message):
    _, problems = conform(value, annotation, "key")
    assert "\n".join(map(str, problems)) == message


def test_mapping_reports_all_its_problems_and_fills_defaults():
    options = {"a": Option(int, REQUIRED), "b": Option(float, 0.5), "c": Option(bool, False)}
    values, problems = conform_mapping({"b": "x", "d": 1, "name": "n"}, options, "group", ignore=("name",))
    assert [str(problem) for problem in problems] == [
        "group.b: must be a number, got 'x'.",
        "group.d: unknown key. Known: a, b, c, name.",
        "group.a: must be given.",
    ]
    assert values["c"] is False


def test_unknown_name_is_met_with_the_nearest():
    with pytest.raises(ConfigError) as caught:
        SHARINGS.load("seperate")
    assert str(caught.value) == "sharing: unknown sharing 'seperate'. Did you mean 'separate'?"
    with pytest.raises(ConfigError) as caught:
        ENCODERS.options("zzz")
    assert str(caught.value) == f"encoder: unknown encoder 'zzz'. Known: {', '.join(ENCODERS.names())}."


def test_direct_construction_is_checked_like_a_configuration():
    with pytest.raises(ConfigError) as caught:
        MLP(InputSpec(3), 4, dropout=2, hidden=[0])
    assert str(caught.value) == (
        "encoder.mlp.dropout: must be in [0, 1), got 2.0.\nencoder.mlp.hidden[0]: must be at least 1, got 0."
    )


def test_unknown_option_of_a_direct_construction_is_an_error_of_the_code():
    with pytest.raises(TypeError, match="dropuot"):
        MLP(InputSpec(3), 4, dropuot=0.1)


@pytest.mark.usefixtures("_cleanup")
@pytest.mark.parametrize("annotation", [PerTask, PerTask | None, TaskList])
def test_option_by_names_of_tasks_may_be_given_by_their_positions(annotation):
    @BALANCINGS.register("mine")
    class Mine(WithoutTypes):
        """Has an option for each task."""

        def __init__(self, num_tasks, *, given: annotation):
            super().__init__(num_tasks)
            self.given = given

    assert BALANCINGS.build("mine", 2, given=[0, 3]).given == [0, 3]
    with pytest.raises(ConfigError, match=re.escape("balancing.mine.given[1]: must be at least 0, got -1")):
        BALANCINGS.build("mine", 2, given=[0, -1])


def _encoder(name="from_outside", module=__name__, qualname="Outside"):
    """An encoder class as a plugin would define it."""

    class Outside(Encoder):
        """An encoder from outside.

        Args:
            gain: Factor on the features.
        """

        def __init__(self, spec, shared_dim, *, gain: Positive = 1.0, mode: Literal["a", "b"] = "a"):  # noqa: ARG002
            super().__init__()
            self.layer, self.gain = nn.Linear(spec.numeric_dim, shared_dim), gain

        def forward(self, inputs):
            return self.gain * self.layer(inputs.numeric)

    Outside.__module__, Outside.__qualname__ = module, qualname
    return ENCODERS.register(name)(Outside)


@pytest.mark.usefixtures("_cleanup")
def test_component_from_outside_is_a_component_like_any():
    cls = _encoder()
    assert "from_outside" in ENCODERS.names()
    assert ENCODERS.load("from_outside") is cls
    assert ENCODERS.summary("from_outside") == "An encoder from outside."
    assert ENCODERS.options("from_outside") == {
        "gain": Option(Positive, 1.0), "mode": Option(Literal["a", "b"], "a"),
    }  # fmt: skip
    encoder = ENCODERS.build("from_outside", InputSpec(3), 4, gain=2)
    assert encoder(inputs(torch.zeros(5, 3))).shape == (5, 4)
    with pytest.raises(ConfigError) as caught:
        ENCODERS.build("from_outside", InputSpec(3), 4, gain=0, mode="c")
    assert str(caught.value) == (
        "encoder.from_outside.gain: must be greater than 0, got 0.0.\n"
        "encoder.from_outside.mode: must be one of a, b, got 'c'."
    )


@pytest.mark.usefixtures("_cleanup")
def test_option_that_is_a_dataclass_is_checked_as_a_mapping_and_built_with_what_became_of_it():
    @BALANCINGS.register("mine")
    class Mine(WithoutTypes):
        """Has an option with keys of its own."""

        def __init__(self, num_tasks, *, inner: Inner | None = None):
            super().__init__(num_tasks)
            self.inner = inner

    options, problems = conform_mapping({"inner": {"size": 2}}, BALANCINGS.options("mine"), "balancing")
    assert problems == []
    assert BALANCINGS.build("mine", 2, **options).inner == Inner(2)


@pytest.mark.usefixtures("_cleanup")
def test_component_from_outside_may_build_on_a_shipped_one():
    @ENCODERS.register("wide_mlp")
    class WideMLP(MLP):
        """The shipped one under another name."""

    assert ENCODERS.options("wide_mlp") == ENCODERS.options("mlp")
    assert len(ENCODERS.build("wide_mlp", InputSpec(3), 4, hidden=[5]).layers) == 2


@pytest.mark.usefixtures("_cleanup")
def test_options_that_are_inherited_are_read_where_they_are_written():
    own = type("Mine", (MultiGateMixtureOfExperts,), {"__module__": "json"})  # which knows none of the types
    assert options_of(own) == SHARINGS.options("mmoe")


def test_component_from_outside_is_gone_after_the_test():
    assert "from_outside" not in ENCODERS.names()
    assert "wide_mlp" not in ENCODERS.names()


@pytest.mark.usefixtures("_cleanup")
@pytest.mark.parametrize("name", ["mlp"])
def test_shipped_name_cannot_be_taken(name):
    with pytest.raises(ValueError, match=f"encoder '{name}' is "):
        _encoder(name)


@pytest.mark.usefixtures("_cleanup")
def test_shipped_name_cannot_be_taken_before_it_is_loaded():
    BALANCINGS._classes.pop("equal", None)
    with pytest.raises(ValueError, match="balancing 'equal' is shipped with mtl-train; test_registry needs another"):
        BALANCINGS.register("equal")(type("Mine", (), {"__module__": __name__}))


@pytest.mark.usefixtures("_cleanup")
@pytest.mark.parametrize("other", [{"module": "plugin_b"}, {"qualname": "Another"}], ids=["module", "class"])
def test_name_that_is_taken_is_refused(other):
    _encoder()
    with pytest.raises(ValueError, match="encoder 'from_outside' is registered by"):
        _encoder(**other)


@pytest.mark.usefixtures("_cleanup")
def test_module_that_is_loaded_again_may_register_again():
    _encoder()
    second = _encoder()
    assert ENCODERS.load("from_outside") is second


def test_options_of_a_dataclass_are_its_fields():
    assert options_of(Inner) == {"size": Option(PositiveInt, REQUIRED), "name": Option(str | None, None)}


@pytest.mark.parametrize(
    ("bounds", "inside", "outside", "text"),
    [
        (Range(0, 1), [0, 0.5, 1], [-0.1, 1.1, NAN, True, "0"], "in [0, 1]"),
        (Range(0, 1, open_low=True, open_high=True), [0.5], [0, 1], "in (0, 1)"),
        (Range(2), [2, 1e300], [1, INF], "at least 2"),
        (Range(2, open_low=True), [2.1], [2], "greater than 2"),
        (Range(), [-1e300, 0], [INF, -INF, NAN], "a finite number"),
    ],
)
def test_range_knows_what_lies_in_it_and_how_to_say_so(bounds, inside, outside, text):
    assert all(value in bounds for value in inside)
    assert not any(value in bounds for value in outside)
    assert str(bounds) == text


class Unrelated(nn.Module):
    """No balancing method."""

    def weights(self, losses, tasks):  # noqa: ARG002
        return losses


class WithoutWeights(LossBalancing):
    """Lacks what every method has."""

    def __init__(self, num_tasks):  # noqa: ARG002
        super().__init__()


class WithoutTypes(LossBalancing):
    """Has an option of no type."""

    def __init__(self, num_tasks, *, floor=1e-3):  # noqa: ARG002
        super().__init__()
        self.floor = floor

    def weights(self, losses, tasks):  # noqa: ARG002
        return losses


@pytest.mark.usefixtures("_cleanup")
@pytest.mark.parametrize(
    ("cls", "what"),
    [
        (
            Unrelated,
            "must derive from mtl_cli.balancing.base.LossBalancing or mtl_cli.balancing.base.GradientBalancing",
        ),
        (WithoutWeights, "lacks weights, see mtl_cli.balancing.base.LossBalancing"),
        (WithoutTypes, "option 'floor' has no type annotation, such as floor: float"),
    ],
)
def test_class_from_outside_that_cannot_work_is_refused_when_it_is_registered(cls, what):
    with pytest.raises(TypeError) as caught:
        BALANCINGS.register("mine")(cls)
    assert str(caught.value) == f"balancing 'mine' (test_registry.{cls.__name__}): {what}"
    assert "mine" not in BALANCINGS.names()


@pytest.mark.usefixtures("_cleanup")
@pytest.mark.parametrize(
    ("metrics", "what"),
    [
        ({}, "names no metrics, such as metrics = {'r2': True}"),
        (["r2"], "its metrics must be a mapping, such as {'r2': True}, got a list"),
        (
            {"r2": True, "loss": False},
            "names a metric 'loss', which is what its loss is logged as. Give it another.",
        ),
        ({"rmse": False, "bias": None, "r2": True}, "must be better when higher, got 'rmse'. Put 'r2' first."),
        ({"bias": None}, "must be better when higher, got 'bias'. Add one that is."),
    ],
)
def test_kind_from_outside_by_whose_first_metric_the_worst_would_be_best_is_refused(metrics, what):
    with pytest.raises(TypeError) as caught:
        KINDS.register("mine")(type("Own", (Regression,), {"metrics": metrics, "__module__": __name__}))
    assert str(caught.value).startswith("kind 'mine' (test_registry.Own): ")
    assert str(caught.value).endswith(what)


@pytest.mark.usefixtures("_cleanup")
@pytest.mark.parametrize(
    ("annotation", "told"),
    [
        (tuple[int, ...], "tuple[int, ...]"),
        (Sequence[float] | None, "collections.abc.Sequence[float] | None"),
        (dict[int, float], "dict[int, float]"),
        (Path, "pathlib.Path"),
    ],
)
def test_option_of_a_type_that_no_configuration_has_is_refused_when_it_is_registered(annotation, told):
    class Strange(WithoutTypes):
        def __init__(self, num_tasks, *, floor: annotation = None):
            super().__init__(num_tasks, floor=floor)

    with pytest.raises(TypeError) as caught:
        BALANCINGS.register("mine")(Strange)
    assert str(caught.value).endswith(
        f"Strange): option 'floor': {told} is no type of an option. "
        "Write one that YAML has, such as list[float], dict[str, float] or Literal['a', 'b']."
    )


@pytest.mark.usefixtures("_cleanup")
def test_class_without_a_docstring_has_an_empty_summary():
    BALANCINGS.register("mine")(type("Mine", (WithoutTypes,), {"__init__": LossBalancing.__init__}))
    assert BALANCINGS.summary("mine") == ""


@pytest.mark.usefixtures("_cleanup")
def test_types_that_are_not_there_are_told_with_the_component():
    class Wrong(WithoutTypes):
        """Names a type that does not exist."""

        def __init__(self, num_tasks, *, floor: "Positif" = 1e-3):  # noqa: F821
            super().__init__(num_tasks, floor=floor)

    BALANCINGS.register("mine")(Wrong)
    with pytest.raises(ConfigError, match=r"^balancing 'mine' \(test_registry\..*types of its options .*Positif"):
        BALANCINGS.options("mine")


@pytest.mark.usefixtures("_cleanup")
def test_forgotten_constructor_of_the_base_is_told():
    class Forgetful(Encoder):
        """Does not call super().__init__()."""

        def __init__(self, spec, shared_dim):
            self.sizes = spec, shared_dim

        def forward(self, inputs):
            return inputs.numeric

    ENCODERS.register("mine")(Forgetful)
    with pytest.raises(ConfigError, match=r"^encoder 'mine' .*: its constructor does not call super\(\).__init__\(\)"):
        ENCODERS.build("mine", InputSpec(3), 4)


@pytest.mark.usefixtures("_cleanup")
def test_attribute_that_a_component_lacks_is_told_as_its_mistake():
    class Unequipped(Optimizer):
        """Does not call super().__init__()."""

        __module__ = "elsewhere"  # of which no line is run when it is missed

        def __init__(self, flat, *, lr: float = 1e-3):
            pass

        def update(self, views, counts, lr):
            pass

    OPTIMIZERS.register("mine")(Unequipped)
    told = r"^optimizer 'mine' \(elsewhere\..*Unequipped\): AttributeError: .* has no attribute 'flat'\."
    with pytest.raises(ConfigError, match=told), mistakes_in_components():
        OPTIMIZERS.build("mine", "flat").flat.zero_gradient()


class Alone(LossBalancing):
    """Takes nothing that is known at run time."""

    def __init__(self, *, floor: float = 1e-3):  # noqa: ARG002
        super().__init__()

    def weights(self, losses, tasks):  # noqa: ARG002
        return losses


class Late(Alone):
    """Wants something that nobody gives."""

    def __init__(self, num_tasks, names, *, floor: float = 1e-3):  # noqa: ARG002
        super().__init__()


@pytest.mark.usefixtures("_cleanup")
@pytest.mark.parametrize(
    ("cls", "takes", "why"),
    [
        (Alone, "(*, floor=0.001)", "too many positional arguments"),
        (Late, "(num_tasks, names, *, floor=0.001)", "missing a required argument: 'names'"),
    ],
)
def test_constructor_that_does_not_take_what_it_is_given_is_told(cls, takes, why):
    BALANCINGS.register("mine")(cls)
    with pytest.raises(ConfigError) as caught:
        BALANCINGS.build("mine", 2, floor=0.1)
    assert str(caught.value) == (
        f"balancing 'mine' (test_registry.{cls.__name__}): its constructor takes {takes}, and is given int and "
        f"the options by name ({why}). See mtl_cli.balancing.base.Balancing."
    )


@pytest.mark.usefixtures("_cleanup")
@pytest.mark.parametrize("base", [LossBalancing, GradientBalancing])  # whose own take nothing, and other things
def test_class_without_a_constructor_is_told(base):
    own = {"weights": lambda *_: None, "direction": lambda *_: None, "__module__": __name__}
    BALANCINGS.register("mine")(type("Bare", (base,), own))
    with pytest.raises(ConfigError) as caught:
        BALANCINGS.build("mine", 2)
    assert str(caught.value) == (
        "balancing 'mine' (test_registry.Bare): has no constructor of its own, which is given int and the options by "
        "name. See mtl_cli.balancing.base.Balancing."
    )


@pytest.mark.usefixtures("_cleanup")
def test_constructor_of_a_base_that_takes_the_facts_may_be_inherited():
    class Printing(Logger):
        """Sends what it gets nowhere."""

        def open(self, known, step):  # noqa: ARG002
            return ""

        def send(self, numbers, step):
            pass

        def close(self, state):
            pass

    LOGGERS.register("mine")(Printing)
    assert LOGGERS.build("mine", "facts").run == "facts"


WEIGHTS = "mtl_cli.balancing.base.LossBalancing.weights(losses, tasks)"


@pytest.mark.usefixtures("_cleanup")
@pytest.mark.parametrize(
    ("method", "takes", "told", "expected"),
    [
        ("weights", "self, losses", "(losses)", WEIGHTS),
        ("weights", "losses, tasks", "(tasks)", WEIGHTS),
        ("weights", "self, losses, tasks, names", "(losses, tasks, names)", WEIGHTS),
        ("weights", "self, losses, *, tasks", "(losses, *, tasks)", WEIGHTS),
        ("after_epoch", "self", "()", "mtl_cli.balancing.base.Balancing.after_epoch(losses)"),
    ],
)
def test_method_that_cannot_be_called_as_that_of_the_base_is_refused_when_it_is_registered(
    method, takes, told, expected
):
    cls = type("Own", (Alone,), {method: eval(f"lambda {takes}: None"), "__module__": __name__})
    with pytest.raises(TypeError) as caught:
        BALANCINGS.register("mine")(cls)
    assert str(caught.value) == f"balancing 'mine' (test_registry.Own): {method}{told} must take what {expected} takes"


@pytest.mark.usefixtures("_cleanup")
@pytest.mark.parametrize(
    ("takes", "wrapped"),
    [
        ("self, *given", None),
        ("self, of_all, which=None, factor=1", None),
        ("losses, tasks", staticmethod),
        ("self, losses, tasks", torch.no_grad()),
    ],
)
def test_method_that_can_be_called_as_that_of_the_base_is_taken(takes, wrapped):
    weights = eval(f"lambda {takes}: None")
    cls = type("Own", (Alone,), {"weights": wrapped(weights) if wrapped else weights, "__module__": __name__})
    assert BALANCINGS.register("mine")(cls) is cls


def test_every_shipped_component_derives_from_a_base_of_its_registry():
    for registry in ALL:
        for name in registry.names():
            registry._check_class(registry.load(name), name)


@pytest.mark.usefixtures("_cleanup")
def test_error_out_of_a_component_from_outside_names_its_line():
    @BALANCINGS.register("mine")
    class Raising(LossBalancing):
        """Fails when it is asked."""

        def __init__(self, num_tasks):  # noqa: ARG002
            super().__init__()

        def weights(self, losses, tasks):  # noqa: ARG002
            return losses[len(losses)]

    with pytest.raises(ConfigError) as caught, mistakes_in_components():
        BALANCINGS.build("mine", 2).weights(torch.ones(2), torch.arange(2))
    line = Raising.weights.__code__.co_firstlineno + 1
    assert str(caught.value).startswith(
        f"balancing 'mine' (test_registry.{Raising.__qualname__}), {__file__}, line {line}: Index"
    )


@pytest.mark.usefixtures("_cleanup")
def test_error_over_what_a_component_gave_names_it():
    own = {
        "__module__": "elsewhere",  # no line of this module is the component's
        "__init__": lambda self, num_tasks: GradientBalancing.__init__(self),  # noqa: ARG005
        "direction": lambda self, jacobian, losses, tasks: (jacobian.sum(0).numpy(), None),  # noqa: ARG005
    }
    BALANCINGS.register("mine")(type("Numbers", (GradientBalancing,), own))
    with pytest.raises(ConfigError) as caught, mistakes_in_components():
        BALANCINGS.build("mine", 2).aggregate(torch.eye(2), torch.ones(2), torch.arange(2))
    told = str(caught.value)
    assert told.startswith("balancing 'mine' (elsewhere.Numbers), ")
    assert "base.py, line " in told
    assert "AttributeError: 'numpy.ndarray' object has no attribute 'isfinite'" in told


@pytest.mark.parametrize("error", [ConfigError("ours"), MemoryError("ours")])
def test_error_that_is_no_mistake_of_a_component_passes(error):
    with pytest.raises(type(error)) as caught, mistakes_in_components():
        raise error
    assert caught.value is error
