"""The registries, and what messages call a component."""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

from mtl_cli.errors import ConfigError, Problem, UnknownComponent, did_you_mean
from mtl_cli.registry.class_checks import (
    defining,
    expect_constructor,
    from_outside,
    place,
    strange_methods,
    strange_types,
)
from mtl_cli.registry.conforming import check_options_on_init
from mtl_cli.registry.options import Option, options_from_source, options_of

T = TypeVar("T")
_PACKAGE_DIR = Path(__file__).resolve().parents[1]


class Registry(Generic[T]):
    """The components of one kind, by name.

    Args:
        group: The word users know: the config group or key (``sharing``).
        variable: The name of this registry in this module, as component files spell it in the decorator.
        location: Package below ``mtl_cli`` that holds one file per component (``model/sharing``).
        bases: What every component derives from one of, each as ``module:Class`` below ``mtl_cli``. One with a class
            method ``mistake`` says there, in words, why a class could not be used, or None.
    """

    def __init__(self, group: str, variable: str, location: str, *bases: str) -> None:
        self.group = group
        self._variable = variable
        self._location = location
        self._bases = bases
        self._classes: dict[str, type[T]] = {}

    def register(self, name: str) -> Callable[[type[T]], type[T]]:
        """Class decorator that makes the class known as ``name`` and checks its options on construction.

        Raises:
            ValueError: The name is taken.
            TypeError: A class from outside the package is no component of this kind.
        """

        def decorate(cls: type[T]) -> type[T]:
            taken = self._classes.get(name)
            if taken is not None and place(taken) != place(cls):  # a module that is loaded again may
                raise ValueError(f"{self.group} '{name}' is registered by {place(taken)} and by {place(cls)}")
            if name in self._shipped() and from_outside(cls):
                raise ValueError(
                    f"{self.group} '{name}' is shipped with mtl-train; {cls.__module__} needs another name"
                )
            if from_outside(cls):  # what is shipped has tests of its own
                self._check_class(cls, f"{self.group} '{name}' ({place(cls)})")
            check_options_on_init(cls, f"{self.group}.{name}")
            self._classes[name] = cls
            return cls

        return decorate

    def names(self) -> list[str]:
        """Every known name, sorted."""
        return sorted({*self._shipped(), *self._classes})

    def is_shipped(self, name: str) -> bool:
        """Whether component ``name`` is one of this package's."""
        return name in self._shipped()

    def options(self, name: str) -> Mapping[str, Option]:
        """The options of component ``name``, read without importing it where it is a shipped one."""
        if name in self._classes:
            cls = self._classes[name]
            try:
                return options_of(cls)  # type: ignore[arg-type]  # classes can be hashed
            except (NameError, TypeError) as error:  # an annotation in quotes, or postponed: not looked up before
                what = f"the types of its options cannot be read ({error})"
                raise ConfigError(Problem(describe_component(cls), what)) from error
        init = next(
            (n for n in self._class_node(name).body if isinstance(n, ast.FunctionDef) and n.name == "__init__"), None
        )
        return {} if init is None else options_from_source(init)

    def is_from_outside(self, name: str) -> bool:
        """Whether component ``name`` is known, and none of this package's."""
        return name in self._classes and from_outside(self._classes[name])

    def literal(self, name: str, attribute: str) -> Any:
        """A class attribute of component ``name`` that is a literal in its source (``metrics``)."""
        if name in self._classes:
            return getattr(self._classes[name], attribute)
        for node in self._class_node(name).body:
            if (
                isinstance(node, ast.AnnAssign)
                and isinstance(node.target, ast.Name)
                and node.target.id == attribute
                and node.value
            ):
                return ast.literal_eval(node.value)
        raise AttributeError(f"{self.group} '{name}' has no literal class attribute '{attribute}'")

    def has_own(self, name: str, method: str) -> bool:
        """Whether the class body of component ``name`` has a method, read without importing a shipped one."""
        if name in self._classes:
            return method in vars(self._classes[name])
        return any(isinstance(n, ast.FunctionDef) and n.name == method for n in self._class_node(name).body)

    def summary(self, name: str) -> str:
        """The first line of the component's docstring; empty without one."""
        described = self._classes[name].__doc__ if name in self._classes else ast.get_docstring(self._class_node(name))
        return next(iter((described or "").strip().splitlines()), "")

    def load(self, name: str) -> type[T]:
        """The class registered as ``name``, imported if need be.

        Raises:
            ConfigError: No such component.
        """
        if name not in self._classes:
            path = self._shipped().get(name)
            if path is None:
                raise ConfigError(self.unknown(name))
            importlib.import_module("mtl_cli." + ".".join(path.relative_to(_PACKAGE_DIR).with_suffix("").parts))
        return self._classes[name]

    def build(self, name: str, *runtime: Any, **options: Any) -> T:
        """Makes component ``name`` from run-time facts and validated options.

        Raises:
            ConfigError: The constructor of the class, which is none of ours, does not take them, or leaves out that of
                its base.
        """
        cls = self.load(name)
        if from_outside(cls):
            expect_constructor(cls, describe_component(cls), runtime, options, self._known_bases())
        made = cls(*runtime, **options)
        is_module = hasattr(type(made), "register_parameter")  # of PyTorch, which need not be there to be asked
        if is_module and "_parameters" not in vars(made):
            what = "its constructor does not call super().__init__()"
            raise ConfigError(Problem(describe_component(made), what, "Call it first."))
        return made

    def unknown(self, name: object, where: str | None = None) -> Problem:
        """The problem 'no such component', with the nearest name."""
        hint = did_you_mean(str(name), self.names())
        return UnknownComponent(where or self.group, f"unknown {self.group} '{name}'", hint)

    def name_of(self, cls: type) -> str | None:
        """The name that a class is registered as, if it is."""
        return next((name for name, known in self._classes.items() if known is cls), None)

    def _check_class(self, cls: type, who: str) -> None:
        """Refuses a class that would fail later with an error that does not name it."""
        if self._bases and not any(issubclass(cls, base) for base in self._known_bases()):
            wanted = " or ".join(f"mtl_cli.{base.replace(':', '.')}" for base in self._bases)
            raise TypeError(f"{who}: must derive from {wanted}")
        missing = sorted(getattr(cls, "__abstractmethods__", ()))
        if missing:
            raise TypeError(f"{who}: lacks {', '.join(missing)}, see {defining(cls, missing[0])}")
        for parameter in inspect.signature(inspect.unwrap(cls.__init__)).parameters.values():  # type: ignore[misc]
            if parameter.kind is parameter.KEYWORD_ONLY and parameter.annotation is parameter.empty:
                example = f"{parameter.name}: float"
                raise TypeError(f"{who}: option '{parameter.name}' has no type annotation, such as {example}")
        for name, found in strange_types(cls).items():
            hint = "Write one that YAML has, such as list[float], dict[str, float] or Literal['a', 'b']."
            raise TypeError(f"{who}: option '{name}': {found} is no type of an option. {hint}")
        for own, expected in strange_methods(cls):
            raise TypeError(f"{who}: {own} must take what {expected} takes")
        mistake = cls.mistake() if hasattr(cls, "mistake") else None
        if mistake is not None:
            raise TypeError(f"{who}: {mistake}")

    def _known_bases(self) -> list[type]:
        """What every component derives from one of; where the module of a base was not imported yet, no class can."""
        places = [base.split(":") for base in self._bases]
        found = [getattr(sys.modules.get(f"mtl_cli.{module}"), base, None) for module, base in places]
        return [base for base in found if base is not None]

    def _shipped(self) -> dict[str, Path]:
        return _component_files(self._location, self._variable)

    @functools.cache  # noqa: B019  registries live as long as the process
    def _class_node(self, name: str) -> ast.ClassDef:
        path = self._shipped().get(name)
        if path is None:
            raise ConfigError(self.unknown(name))
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and any(self._registers(d, name) for d in node.decorator_list):
                return node
        raise TypeError(f"{path} must hold a class decorated with @{self._variable}.register({name!r})")

    def _registers(self, decorator: ast.expr, name: str) -> bool:
        return ast.unparse(decorator) == f"{self._variable}.register({name!r})"


@functools.cache
def _component_files(location: str, variable: str) -> dict[str, Path]:
    """The files below ``location`` that register a component under their own name."""
    files = sorted((_PACKAGE_DIR / location).glob("*.py"))
    return {p.stem: p for p in files if f'@{variable}.register("{p.stem}")' in p.read_text(encoding="utf-8")}


SOURCES: Registry[Any] = Registry("source", "SOURCES", "data/sources", "data.sources.base:Source")
KINDS: Registry[Any] = Registry("kind", "KINDS", "tasks", "tasks.base:Kind")
ENCODERS: Registry[Any] = Registry("encoder", "ENCODERS", "model/encoders", "model.encoders.base:Encoder")
SHARINGS: Registry[Any] = Registry("sharing", "SHARINGS", "model/sharing", "model.sharing.base:Sharing")
BALANCINGS: Registry[Any] = Registry(
    "balancing", "BALANCINGS", "balancing", "balancing.base:LossBalancing", "balancing.base:GradientBalancing"
)
OPTIMIZERS: Registry[Any] = Registry("optimizer", "OPTIMIZERS", "optim/optimizers", "optim.base:Optimizer")
SCHEDULERS: Registry[Any] = Registry("scheduler", "SCHEDULERS", "optim/schedulers", "optim.base:Scheduler")
LOGGERS: Registry[Any] = Registry("logger", "LOGGERS", "run/loggers", "run.loggers.base:Logger")
ALL: tuple[Registry[Any], ...] = (
    SOURCES, KINDS, ENCODERS, SHARINGS, BALANCINGS, OPTIMIZERS, SCHEDULERS, LOGGERS,
)  # fmt: skip


def describe_component(component: object) -> str:
    """What messages call a component, or its class: by name and place if it is registered.

    Example:
        >>> describe_component(SCHEDULERS.load("constant"))
        "scheduler 'constant' (mtl_cli.optim.schedulers.constant.Constant)"
    """
    cls = component if isinstance(component, type) else type(component)
    found = ((registry.group, registry.name_of(cls)) for registry in ALL)
    return next((f"{group} '{name}' ({place(cls)})" for group, name in found if name is not None), place(cls))
