"""Names to classes. A constructor's keyword-only arguments ARE its options.

A component is a class in a file of its own, registered under the file's name::

    @SHARINGS.register("hard")
    class HardSharing(Sharing):
        def __init__(self, make_encoder, task_names, *, dropout: Fraction = 0.0): ...

Positional arguments are facts known at run time; keyword-only ones are options that a configuration may set,
typed, defaulted and documented in that one place. To check a configuration before PyTorch is imported, the
signatures of the shipped components are read from their source; ``plugins`` are imported.
"""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import sys
import traceback
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import mtl_cli.types as option_types
from mtl_cli.errors import (
    ConfigError,
    MTLError,
    Problem,
    UnknownComponent,
    did_you_mean,
    is_lack_of_memory,
    nearest,
    shown,
)

T = TypeVar("T")
REQUIRED = object()
_PACKAGE_DIR = Path(__file__).resolve().parent
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
_PLAIN_TYPES = (Any, bool, int, float, str, list, dict, type(None))
_ANNOTATION_NAMES = {**vars(typing), **vars(option_types)}


@dataclass(frozen=True)
class Option:
    """One key that a component accepts: its type annotation and its default (``REQUIRED`` if there is none)."""

    annotation: Any
    default: Any


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
            if taken is not None and _place(taken) != _place(cls):  # a module that is loaded again may
                raise ValueError(f"{self.group} '{name}' is registered by {_place(taken)} and by {_place(cls)}")
            if name in self._shipped() and from_outside(cls):
                raise ValueError(
                    f"{self.group} '{name}' is shipped with mtl-train; {cls.__module__} needs another name"
                )
            if from_outside(cls):  # what is shipped has tests of its own
                self._check_class(cls, f"{self.group} '{name}' ({_place(cls)})")
            _check_options_on_init(cls, f"{self.group}.{name}")
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
        return {} if init is None else _options_from_source(init)

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
            _expect_constructor(cls, runtime, options, self._known_bases())
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
            raise TypeError(f"{who}: lacks {', '.join(missing)}, see {_defining(cls, missing[0])}")
        for parameter in inspect.signature(inspect.unwrap(cls.__init__)).parameters.values():  # type: ignore[misc]
            if parameter.kind is parameter.KEYWORD_ONLY and parameter.annotation is parameter.empty:
                example = f"{parameter.name}: float"
                raise TypeError(f"{who}: option '{parameter.name}' has no type annotation, such as {example}")
        for name, found in _strange_types(cls).items():
            hint = "Write one that YAML has, such as list[float], dict[str, float] or Literal['a', 'b']."
            raise TypeError(f"{who}: option '{name}': {found} is no type of an option. {hint}")
        for own, expected in _strange_methods(cls):
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


def _place(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _strange_types(cls: type) -> dict[str, str]:
    """The options of a class whose types no value of a configuration can have; none where they cannot be read yet."""
    try:
        options = options_of(cls)
    except (NameError, TypeError):  # in quotes, or postponed: told when they are asked for
        return {}
    annotations = {name: option.annotation for name, option in options.items()}
    return {name: inspect.formatannotation(own) for name, own in annotations.items() if not _is_option_type(own)}


def _is_option_type(annotation: Any) -> bool:
    """Whether ``conform`` knows how to check values against a type annotation.

    Example:
        >>> [_is_option_type(own) for own in (list[float | None], dict[str, bool], tuple[int, ...], list[set[str]])]
        [True, True, False, False]
    """
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _is_option_type(args[0])
    if origin in (typing.Union, types.UnionType, list):
        return all(map(_is_option_type, args))
    if origin is dict:
        return args[0] is str and _is_option_type(args[1])
    if is_dataclass(annotation) and isinstance(annotation, type):
        return all(_is_option_type(option.annotation) for option in options_of(annotation).values())
    return origin is Literal or annotation in _PLAIN_TYPES


def _defining(cls: type, method: str) -> str:
    """The first class that asks for a method."""
    return _place(next(base for base in reversed(cls.__mro__) if method in vars(base)))


def _strange_methods(cls: type) -> Iterator[tuple[str, str]]:
    """The methods of a class that cannot be called as those of our base, each with its signature, and the base's."""
    ours = [base for base in reversed(cls.__mro__) if not from_outside(base)]
    first = {name: base for base in reversed(ours) for name in vars(base) if not name.startswith("_")}
    for name, base in first.items():
        expected, own = _signature(base, name), _signature(cls, name)
        if expected is not None and own is not None and not _takes_calls_of(expected, own):
            yield f"{name}{own}", f"{_place(base)}.{name}{expected}"


def _signature(cls: type, name: str) -> inspect.Signature | None:
    """What a method takes besides the object, types left out; None: it is no method."""
    member = inspect.getattr_static(cls, name)
    function = getattr(member, "__func__", member)  # of a static or class method
    if not isinstance(function, types.FunctionType):
        return None
    return _without_types(inspect.signature(member.__get__(cls, cls)))  # bound, to whatever it is


def _without_types(signature: inspect.Signature) -> inspect.Signature:
    """A signature as short as messages show it."""
    parameters = [parameter.replace(annotation=parameter.empty) for parameter in signature.parameters.values()]
    return signature.replace(parameters=parameters, return_annotation=signature.empty)


def _expect_constructor(cls: type, runtime: tuple[Any, ...], options: Mapping[str, Any], bases: Sequence[type]) -> None:
    """Refuses a class whose constructor cannot be called with the facts and options of its kind of component.

    One that is inherited from the base of all may have no place for the facts, and would take them for other things.
    """
    facts = ", ".join(type(fact).__name__ for fact in runtime)
    given = " and ".join(filter(None, [facts, "the options by name"]))
    hint = f"See {_place(next(base for base in reversed(cls.__mro__) if not from_outside(base)))}."
    own = inspect.unwrap(cls.__init__)  # type: ignore[misc]
    needed = [p for p in inspect.signature(own).parameters.values() if p.default is p.empty and p.kind not in _VARIADIC]
    if len(needed) - 1 < len(runtime) and any(own is base.__init__ for base in bases):  # type: ignore[misc]
        what = f"has no constructor of its own, which is given {given}"
        raise ConfigError(Problem(describe_component(cls), what, hint))
    signature = _without_types(inspect.signature(cls))
    try:
        signature.bind(*runtime, **options)
    except TypeError as error:
        what = f"its constructor takes {signature}, and is given {given} ({error})"
        raise ConfigError(Problem(describe_component(cls), what, hint)) from error


def _takes_calls_of(expected: inspect.Signature, own: inspect.Signature) -> bool:
    """Whether what is written for one signature can be called by another, with all arguments and with the fewest."""
    for fewest in (False, True):
        given = [p for p in expected.parameters.values() if not (fewest and p.default is not p.empty)]
        by_name = {p.name: None for p in given if p.kind is p.KEYWORD_ONLY}
        by_position = [p for p in given if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        try:
            own.bind(*by_position, **by_name)
        except TypeError:
            return False
    return True


def from_outside(cls: type) -> bool:
    """Whether a class is none of this package's."""
    return not cls.__module__.startswith("mtl_cli.")


def describe_component(component: object) -> str:
    """What messages call a component, or its class: by name and place if it is registered.

    Example:
        >>> describe_component(SCHEDULERS.load("constant"))
        "scheduler 'constant' (mtl_cli.optim.schedulers.constant.Constant)"
    """
    cls = component if isinstance(component, type) else type(component)
    found = ((registry.group, registry.name_of(cls)) for registry in ALL)
    return next((f"{group} '{name}' ({_place(cls)})" for group, name in found if name is not None), _place(cls))


def expect_shape(component: object, what: str, value: Any, shape: tuple[int, ...]) -> None:
    """Refuses what a component gives if it is no tensor of a shape.

    Args:
        component: Who gives it.
        what: What it is, in words.
        value: It.
        shape: Its shape, if all is well.

    Raises:
        ConfigError: It has another shape.
    """
    found = getattr(value, "shape", None)
    if found != shape:
        given = f"a {type(value).__name__}" if found is None else f"{tuple(found)}"
        must = "must have shape" if found is None else "must be"
        raise ConfigError(Problem(describe_component(component), f"gives {given} as {what}, {must} {tuple(shape)}"))


@contextmanager
def mistakes_in_components() -> Iterator[None]:
    """Tells of errors that come out of components from outside the package as what they are: no bugs of ours.

    Raises:
        ConfigError: Such an error came; names the component, file and line. Other errors pass.
    """
    try:
        yield
    except (MTLError, MemoryError, OSError):
        raise
    except Exception as error:
        where = _own_line(error)
        if where is None or is_lack_of_memory(error):  # not the component's mistake
            raise
        lines = str(error).strip().splitlines() or [""]
        problem = Problem(where, f"{type(error).__name__}: {lines[0][:300]}", "HYDRA_FULL_ERROR=1 shows all of it.")
        raise ConfigError(problem) from error


def _own_line(error: Exception) -> str | None:
    """The innermost line of an error's traceback that is in a module with a component from outside.

    Where there is none, that of a method which such a component inherits: what it does with what the component gave it.
    Or else the component that lacks an attribute, as one does whose constructor does not call that of its base.
    """
    outside = [cls for registry in ALL for cls in registry._classes.values() if from_outside(cls)]
    modules = {cls.__module__: cls for cls in outside}
    inherited = None
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        cls = modules.get(frame.f_globals.get("__name__", ""))
        own = frame.f_locals.get("self")  # a module may hold several components
        owner = frame.f_locals.get("cls", cls) if own is None else type(own)
        place = f", {frame.f_code.co_filename}, line {line}"
        if cls is not None:
            return describe_component(owner) + place
        if inherited is None and any(owner is known for known in outside):
            inherited = describe_component(owner) + place
    lacking = type(error.obj) if isinstance(error, AttributeError) else None
    return inherited or next((describe_component(cls) for cls in outside if cls is lacking), None)


@functools.cache
def _component_files(location: str, variable: str) -> dict[str, Path]:
    """The files below ``location`` that register a component under their own name."""
    files = sorted((_PACKAGE_DIR / location).glob("*.py"))
    return {p.stem: p for p in files if f'@{variable}.register("{p.stem}")' in p.read_text(encoding="utf-8")}


@functools.cache  # a run of 600 tasks asks for those of a task 600 times
def options_of(cls: type) -> Mapping[str, Option]:
    """The options of a class: its constructor's keyword-only arguments, or its fields if it is a dataclass."""
    if is_dataclass(cls):
        hints = typing.get_type_hints(cls, include_extras=True)
        found = {}
        for field in fields(cls):
            default = REQUIRED if field.default is MISSING else field.default
            if field.default_factory is not MISSING:
                default = field.default_factory()
            found[field.name] = Option(hints[field.name], default)
        return found
    init = inspect.unwrap(cls.__init__)  # type: ignore[misc]
    parameters = [p for p in inspect.signature(init).parameters.values() if p.kind is p.KEYWORD_ONLY]
    if not parameters:
        return {}
    names = {**_ANNOTATION_NAMES, **init.__globals__}  # of the module that it stands in: a subclass may inherit it
    hints = typing.get_type_hints(init, names, include_extras=True)
    return {p.name: Option(hints[p.name], REQUIRED if p.default is p.empty else p.default) for p in parameters}


def conform(value: Any, annotation: Any, where: str) -> tuple[Any, list[Problem]]:
    """Checks ``value`` against a type annotation and converts what is safe to convert (int to float).

    Returns:
        The value to use, and the problems found (empty if it fits).

    Example:
        >>> conform(1, float, "lr")
        (1.0, [])
        >>> print(conform("big", float, "lr")[1][0])
        lr: must be a number, got 'big'.
    """
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        value, problems = conform(value, args[0], where)
        bounds = [m for m in args[1:] if isinstance(m, option_types.Range)]
        if not problems:
            problems = [
                Problem(where, f"must be {b.wanted(value)}, got {shown(value)}") for b in bounds if value not in b
            ]
        return value, problems
    if origin in (typing.Union, types.UnionType):
        return _conform_union(value, args, where)
    if is_dataclass(annotation) and isinstance(annotation, type):
        if isinstance(value, annotation):  # made of a mapping before, or by hand
            return value, []
        if not isinstance(value, Mapping):
            return value, [Problem(where, f"must be a mapping, got {shown(value)}")]
        values, problems = conform_mapping(value, options_of(annotation), where)
        return (value if problems else annotation(**values)), problems
    if origin is Literal:
        if any(value == a and type(value) is type(a) for a in args):
            return value, []
        return value, [
            Problem(where, f"must be one of {', '.join(map(str, args))}, got {shown(value)}", _nearest(value, args))
        ]
    if origin is list:
        if not isinstance(value, list):
            return value, [Problem(where, f"must be a list, got {shown(value)}", _as_list(value))]
        pairs = [conform(v, args[0], f"{where}[{i}]") for i, v in enumerate(value)]
        return [v for v, _ in pairs], [p for _, found in pairs for p in found]
    if origin is dict:
        if not isinstance(value, Mapping):
            return value, [Problem(where, f"must be a mapping, got {shown(value)}")]
        checked = {str(k): conform(v, args[1], f"{where}.{k}") for k, v in value.items()}
        return {k: v for k, (v, _) in checked.items()}, [p for _, found in checked.values() for p in found]
    return _conform_plain(value, annotation, where)


def conform_mapping(
    node: Mapping[str, Any], options: Mapping[str, Option], where: str, *, ignore: tuple[str, ...] = ()
) -> tuple[dict[str, Any], list[Problem]]:
    """Checks every key of ``node`` against ``options``: unknown keys, types, ranges, missing values; fills defaults."""
    values: dict[str, Any] = {}
    problems: list[Problem] = []
    prefix = f"{where}." if where else ""
    for key, value in node.items():
        if key in ignore:
            continue
        if key not in options:
            problems.append(Problem(f"{prefix}{key}", "unknown key", did_you_mean(str(key), [*options, *ignore])))
            continue
        values[key], found = conform(value, options[key].annotation, f"{prefix}{key}")
        problems += found
    for key, option in options.items():
        if key not in node:
            if option.default is REQUIRED:
                problems.append(Problem(f"{prefix}{key}", "must be given"))
            values[key] = option.default
    return values, problems


def _as_list(value: Any) -> str:
    """How to write a list instead of a value."""
    if isinstance(value, str) and value.startswith("["):
        return "Quote its items, not the whole."
    return "" if value is None else f"Write [{value}]."


def _conform_union(value: Any, args: tuple[Any, ...], where: str) -> tuple[Any, list[Problem]]:
    members = [a for a in args if a is not type(None)]
    if value is None and len(members) < len(args):
        return None, []
    any_value = all(kind in members for kind in typing.get_args(option_types.Plain))  # a text of a table, not a name
    if isinstance(value, str) and value.lower() in ("none", "null") and len(members) < len(args) and not any_value:
        return value, [
            Problem(where, f"is the text {value!r}, not an empty value", f"Write {where.rpartition('.')[2]}=null.")
        ]
    attempts = [conform(value, member, where) for member in members]
    for attempt in attempts:
        if not attempt[1]:
            return attempt
    if len(members) > 1 and not any(_same_shape(value, m) for m in members):
        expected = " or ".join(_type_name(m) for m in members)
        hint = "Write it in quotes." if isinstance(value, bool) and str in members else ""
        hint = hint or _nearest(value, _choices(members))
        return value, [Problem(where, f"must be {expected}, got {shown(value)}", hint)]
    return next((a for a, m in zip(attempts, members, strict=True) if _same_shape(value, m)), attempts[0])


def _conform_plain(value: Any, annotation: Any, where: str) -> tuple[Any, list[Problem]]:
    if annotation is Any:
        return value, []
    if annotation is float and isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return float(value), []
        except OverflowError:
            return value, [Problem(where, f"must be a number within the range of 64 bits, got {shown(value)}")]
    if isinstance(value, annotation) and not (annotation is int and isinstance(value, bool)):
        return value, []
    hint = "Write it in quotes." if annotation is str and isinstance(value, bool | int | float) else ""
    if annotation in (int, float) and isinstance(value, str) and _reads_as(value, annotation):
        hint = "It is text: leave out the quotes; of the environment, ${oc.decode:${oc.env:NAME}} is a number."
    return value, [Problem(where, f"must be {_type_name(annotation)}, got {shown(value)}", hint)]


def _reads_as(text: str, number: type[int] | type[float]) -> bool:
    try:
        number(text)
    except ValueError:
        return False
    return True


def _type_name(annotation: Any) -> str:
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _type_name(args[0])
    if origin is Literal:
        return " or ".join(map(str, args))
    return names.get(annotation, {list: "a list", dict: "a mapping"}.get(origin, str(annotation)))


def _same_shape(value: Any, annotation: Any) -> bool:
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _same_shape(value, args[0])
    if origin in (list, dict):
        return isinstance(value, origin)
    if origin is Literal:
        return False
    return not _conform_plain(value, annotation, "")[1]


def _choices(members: list[Any]) -> tuple[Any, ...]:
    return tuple(a for m in members if typing.get_origin(m) is Literal for a in typing.get_args(m))


def _nearest(value: Any, choices: tuple[Any, ...]) -> str:
    return nearest(value, map(str, choices)) if isinstance(value, str) else ""


@functools.cache
def _options_from_source(init: ast.FunctionDef) -> Mapping[str, Option]:
    found = {}
    for argument, default in zip(init.args.kwonlyargs, init.args.kw_defaults, strict=True):
        if argument.annotation is None:
            raise TypeError(f"option '{argument.arg}' has no type annotation")
        annotation = eval(ast.unparse(argument.annotation), dict(_ANNOTATION_NAMES))  # our own source, not user input
        found[argument.arg] = Option(annotation, REQUIRED if default is None else ast.literal_eval(default))
    return found


def _check_options_on_init(cls: type, where: str) -> None:
    """Makes direct construction (``CAGrad(c=-1)``) refuse what a configuration would be refused for."""
    original = cls.__init__  # type: ignore[misc]
    options: Mapping[str, Option] | None = None

    @functools.wraps(original)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        nonlocal options
        options = options_of(cls) if options is None else options
        problems: list[Problem] = []
        for key, value in kwargs.items():
            if key in options:
                kwargs[key], found = conform(value, _in_constructor(options[key].annotation), f"{where}.{key}")
                problems += found
        if problems:
            raise ConfigError(problems)
        original(self, *args, **kwargs)

    cls.__init__ = __init__  # type: ignore[misc]


def _in_constructor(annotation: Any) -> Any:
    """The type that an option may have in a call: what is given by names of tasks may be given by positions there."""
    members = typing.get_args(annotation)
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return typing.Union[tuple(map(_in_constructor, members))]  # noqa: UP007  of a tuple
    marks = [mark for mark in members[1:] if isinstance(mark, option_types.TaskNames)]
    return typing.Union[marks[0].by_position, annotation] if marks else annotation  # noqa: UP007  of any types


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
