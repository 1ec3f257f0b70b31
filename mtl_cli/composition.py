"""Between Hydra and the rest: overrides in, plain mappings and readable errors out.

Hydra would refuse ``tasks.income.weight=2`` where the file does not list the option, and accept ``+sed=1``. Here every
override is applied, and ``schema.validate`` alone decides what is a key: one rule, one message.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import shlex
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra._internal.hydra import Hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override, QuotedString
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mtl_cli.errors import ConfigError, Problem, did_you_mean, nearest
from mtl_cli.run import folder_error
from mtl_cli.schema import TOP_KEYS, Origin, with_origin

_TOP_LEVEL = (*TOP_KEYS, "hydra")
FLAGS_WITH_VALUE = (
    "--config-dir", "-cd", "--config-name", "-cn", "--config-path", "-cp", "--package", "-p",
    "--cfg", "-c", "--info", "-i", "--shell-completion", "-sc", "--experimental-rerun",
)  # fmt: skip
OTHER_FLAGS = ("--help", "-h", "--hydra-help", "--version", "--resolve", "--run", "-r", "--multirun", "-m")
_CONFIG_DIR = ("--config-dir", "-cd")
# Hydra's words for a header that it cannot read.
_HEADER_REFUSED = re.compile(r"(?:Too many components in|Expected header format: KEY VALUE, got) '(.*)'")
GLOBAL = "# @package _global_"
#: Choices that a package of Hydra's brings: our extra, and the package.
EXTRAS = {
    ("hydra/launcher", "joblib"): ("joblib", "hydra-joblib-launcher"),
    ("hydra/launcher", "submitit_local"): ("submitit", "hydra-submitit-launcher"),
    ("hydra/launcher", "submitit_slurm"): ("submitit", "hydra-submitit-launcher"),
    ("hydra/launcher", "ray"): ("ray", "hydra-ray-launcher"),
    ("hydra/sweeper", "optuna"): ("optuna", "hydra-optuna-sweeper"),
}


def config_dir() -> Path:
    """The shipped configuration files: inside the package in a wheel, beside it in a source tree."""
    here = Path(__file__).resolve().parent
    for folder in (here / "configs", here.parent / "configs"):
        if (folder / "config.yaml").is_file():
            return folder
    raise RuntimeError("mtl-train: its configs/ folder is missing; install the package again")


def split_arguments(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Separates flags, each joined with its value, from overrides, so that they may be given in any order.

    Example:
        >>> split_arguments(["task=digits", "--config-dir", "conf", "seed=1", "-m"])
        (['--config-dir=conf', '-m'], ['task=digits', 'seed=1'])
    """
    flags, overrides, rest = [], [], list(argv)
    while rest:
        argument = rest.pop(0)
        if not argument.startswith("-"):
            overrides.append(argument)
        elif argument in ("--info", "-i") and (not rest or "=" in rest[0]):
            flags.append(f"{argument}=all")  # what Hydra takes it for, but not in front of an override
        elif argument in FLAGS_WITH_VALUE and rest:
            flags.append(f"{argument}={rest.pop(0)}")
        else:
            flags.append(argument)
    return flags, overrides


def flag_names(flags: Sequence[str]) -> set[str]:
    """The flags without their values."""
    return {flag.partition("=")[0] for flag in flags}


def user_config_dir(flags: Sequence[str]) -> Path | None:
    """The folder given with ``--config-dir``."""
    folders = _config_dirs(flags)
    return Path(folders[-1]) if folders else None


def without_config_dir(flags: Sequence[str]) -> list[str]:
    """The other flags.

    Example:
        >>> without_config_dir(["--config-dir=conf", "-m", "-cd=more"])
        ['-m']
    """
    return [flag for flag in flags if flag.partition("=")[0] not in _CONFIG_DIR]


def check_flags(flags: Sequence[str]) -> None:
    """Finds flags that there are not, those that lack their value, and a second folder of configuration files.

    Raises:
        ConfigError: Every such flag.
    """
    problems = []
    for given in flags:
        flag, _, value = given.partition("=")
        if flag not in (*FLAGS_WITH_VALUE, *OTHER_FLAGS):
            key = flag.lstrip("-")
            hint = f"Keys are set without dashes: {key}={value or '...'}. Flags: mtl-train --hydra-help."
            problems.append(Problem(flag, "unknown flag", hint))
        elif flag in FLAGS_WITH_VALUE and not value:
            problems.append(Problem(flag, "needs a value", f"Write {flag} VALUE."))
    folders = _config_dirs(flags)
    if len(folders) > 1:  # Hydra would take the last, and say nothing of the others
        what = f"must be given once, got {' and '.join(folders)}"
        problems.append(Problem("--config-dir", what, "Put the files of both into one folder."))
    if problems:
        raise ConfigError(problems)


def _config_dirs(flags: Sequence[str]) -> list[str]:
    pairs = (flag.partition("=") for flag in flags)
    return [folder for flag, _, folder in pairs if flag in _CONFIG_DIR and folder]


def check_shadowed(own: Path) -> None:
    """Finds files of the user that would be ignored: Hydra takes ours where both have the same name.

    Raises:
        ConfigError: Every such file, unless it is a copy.
    """
    shipped = config_dir()
    problems = []
    for file in sorted(own.rglob("*.yaml")) if own.resolve() != shipped else []:
        ours = shipped / file.relative_to(own)
        if ours.is_file() and ours.read_bytes() != file.read_bytes():
            what = "would be ignored: mtl-train ships a file of that name"
            problems.append(Problem(_short(file), what, "Give yours another name."))
    if problems:
        raise ConfigError(problems)


@contextlib.contextmanager
def mode_by_flags(overrides: Sequence[str], own: Path | None) -> Iterator[None]:
    """Lets ``-m`` alone say whether a command is a sweep, where nothing sets ``hydra.mode``.

    Hydra composes everything once more just to look for that key, which is half of the time until an error is told.

    Args:
        overrides: Of the command line.
        own: The user's folder of configuration files. The shipped ones do not set the key.
    """
    files = [] if own is None else [file.read_bytes() for file in own.rglob("*.y*ml") if file.is_file()]
    if any(re.search(rb"\bmode\b|searchpath", text) for text in (*files, *(o.encode() for o in overrides))):
        yield
        return
    looks, Hydra.get_mode = Hydra.get_mode, lambda *_, **__: None  # type: ignore[method-assign]
    try:
        yield
    finally:
        Hydra.get_mode = looks  # type: ignore[method-assign]


def search_path(sources: Iterable[Any]) -> tuple[Path, ...]:
    """The folders with configuration files, from what Hydra says of a running job; ours first."""
    folders = [Path(source.path) for source in sources if source.schema == "file" and source.provider != "hydra"]
    return tuple(folder for folder in folders if folder.is_dir())


def config_groups(folders: Sequence[Path]) -> dict[str, list[str]]:
    """Choices of each config group in these folders: ``{"encoder": ["mlp"], ...}``."""
    groups: dict[str, list[str]] = {}
    for folder in folders:
        for file in sorted(folder.glob("*/**/*.yaml")) if folder.is_dir() else []:
            groups.setdefault(file.parent.relative_to(folder).as_posix(), []).append(file.stem)
    return groups


def forced(override: str, groups: Mapping[str, Any]) -> str:
    """An override that Hydra applies whether or not a file lists the key; choices of groups stay as they are.

    Example:
        >>> forced("tasks.income.weight=2", {}), forced("sharing=mmoe", {"sharing": []}), forced("~extra", {})
        ('++tasks.income.weight=2', 'sharing=mmoe', '~extra')
    """
    key = override.lstrip("+").partition("=")[0].partition("@")[0].lstrip("/")
    if (
        override.startswith("~")
        or "=" not in override
        or key in groups
        or key == "hydra"
        or key.startswith(("hydra.", "hydra/"))
    ):
        return override
    return "++" + override.lstrip("+")


def check_overrides(overrides: Sequence[str], multirun: bool, groups: Mapping[str, Any]) -> None:
    """Finds overrides that Hydra could not read, and what can be said of them before anything is composed.

    Raises:
        ConfigError: Every such override, with the way to write it.
    """
    parser = OverridesParser.create()
    problems = []
    for text in overrides:
        key, equals, value = text.partition("=")
        top = key.lstrip("+~")
        try:
            override = parser.parse_override(text)
        except HydraException:
            problems.append(_unreadable(parser, key, value) if top and equals else _no_override(text))
            continue
        if not top:
            problems.append(_no_override(text))
            continue
        if override.is_sweep_override() and not multirun:
            what = f"'{text}' gives several values for one run"
            plain_list = "" if re.search(r"[(\[{]", value) else f"; for a list write {key}=[{value}]"
            problems.append(Problem("command line", what, f"For a sweep add -m{plain_list}."))
        if top in groups and (other := _no_choice(override, value)) is not None:
            what = f"must be the name of a choice, got {other}"
            quoted = f"Quote it: '{key}=\"{other}\"'."  # a file may be called 2024.yaml
            hint = quoted if other in groups[top] else did_you_mean(other, groups[top])
            problems.append(Problem(f"{top} (command line)", what, hint))
        near = nearest(top, [*groups, *_TOP_LEVEL])
        if top not in groups and top not in _TOP_LEVEL and "." not in top and near:
            problems.append(Problem(f"{top} (command line)", "unknown key", near))
    if problems:
        raise ConfigError(problems)


def _no_override(text: str) -> Problem:
    return Problem("command line", f"'{text}' is no override", "Write key=value.")


def _unreadable(parser: OverridesParser, key: str, value: str) -> Problem:
    """What Hydra's grammar does not take of an override, and a way to write it that it does take."""
    if not _reads(parser, f"{key}=0"):
        what = f"cannot read the key of '{key}={value}'"
        hint = "Set it in a file: on the command line a key is of letters from a to z, digits, '_', '-' and dots."
        return Problem("command line", what, hint)
    is_container = value.startswith(("[", "{"))
    forms = [_items_quoted(parser, value, ",[]{}" + colon) for colon in ("", ":")] if is_container else [quoted(value)]
    readable = next((form for form in forms if _reads(parser, f"{key}={form}")), None)
    if readable is not None:
        hint = f"Quote {'its items' if is_container else 'it'}: {shlex.quote(f'{key}={readable}')}."
    else:
        hint = 'Set it in a file, or write a list as [a,"b=c"], with quotes around what is no plain word.'
    return Problem("command line", f"cannot read the value of '{key}={value}'", hint)


def _items_quoted(parser: OverridesParser, value: str, between: str) -> str:
    """A list or mapping with quotes around every item that cannot be read without them.

    Args:
        parser: Reads items.
        value: As the user wrote it.
        between: The signs that items stand between.
    """
    around = re.escape(between)
    item = re.compile(rf"""(?:"[^"]*"|'[^']*')(?=\s*[{around}])|[^{around}\s](?:[^{around}]*[^{around}\s])?""")
    return item.sub(lambda found: found[0] if _reads(parser, f"a=[{found[0]}]") else quoted(found[0]), value)


def quoted(text: str) -> str:
    """A text as Hydra's grammar takes any, in quotes."""
    return '"' + text.replace('"', r"\"") + '"'


def _reads(parser: OverridesParser, override: str) -> bool:
    try:
        parser.parse_override(override)
    except HydraException:
        return False
    return True


def as_written(overrides: Sequence[str]) -> list[str]:
    """Overrides as the user wrote them."""
    return [override.removeprefix("++") for override in overrides]


def unresolved(overrides: ListConfig) -> list[str]:
    """Hydra's list of overrides as text; a ``${...}`` in one is not for this list to resolve."""
    plain_list = OmegaConf.to_container(overrides, resolve=False)
    return list(map(str, plain_list)) if isinstance(plain_list, list) else []


def plain(config: DictConfig, origin: Origin = lambda _: None, must_be_set: Sequence[str] = ()) -> dict[str, Any]:
    """The configuration as plain mappings and lists, with interpolations resolved.

    Args:
        config: As composed; Hydra's own part is left out.
        origin: Where a key path was set.
        must_be_set: Key paths that count as missing although they have a value; see ``unset``.

    Raises:
        ConfigError: Every value that is missing (``???``) or refers to what is not there.
    """
    problems: list[Problem] = []
    value = _plain(config, "", problems, without=("hydra",))
    told = [problem.where for problem in problems]
    problems += [_missing(path) for path in must_be_set if path not in told]
    if problems:
        raise ConfigError([with_origin(problem, origin) for problem in problems])
    return dict(value)


def unset(files: Sequence[Path], overrides: Sequence[str], groups: Iterable[str] = ()) -> list[str]:
    """Key paths that a file says must be set (``???``) and that nobody sets after it.

    Where there is a value before it, OmegaConf would keep that without a word.

    Args:
        files: The files that were composed, the one that wins last.
        overrides: Of the command line.
        groups: As in ``origin_of``.
    """
    waiting: list[str] = []
    for file in files:
        values = _values(file)
        given = [path for path, value in values.items() if value != "???"]
        waiting = [path for path in waiting if not any(_meet(path, other) for other in given)]
        waiting += [path for path, value in values.items() if value == "???"]
    given = [key for override in overrides if (key := override.lstrip("+").partition("=")[0]) not in groups]
    return [path for path in dict.fromkeys(waiting) if not any(_meet(path, other) for other in given)]


def _meet(path: str, other: str) -> bool:
    """Whether two key paths are one, or one of them leads to the other."""
    return f"{path}.".startswith(f"{other}.") or f"{other}.".startswith(f"{path}.")


def _values(file: Path) -> dict[str, str]:
    """What a file sets: the values of mappings as they are written, by their key paths; of lists and others ``""``."""
    text = file.read_text(encoding="utf-8")
    return _values_in(text, _package(file, text))


@functools.cache
def _values_in(text: str, package: str) -> dict[str, str]:
    """The same for the text of a file: the jobs of a sweep are composed of few of them."""
    found: dict[str, str] = {}

    def walk(node: yaml.Node | None, path: str) -> None:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                walk(value, f"{path}.{key.value}" if path else str(key.value))
        elif path:
            found[path] = node.value if isinstance(node, yaml.ScalarNode) else ""

    walk(yaml.compose(text, Loader=yaml.SafeLoader), package)
    found.pop("defaults", None)
    return found


def _package(file: Path, text: str) -> str:
    """The key path below which a file's own keys stand: its group, or what a ``# @package`` header says."""
    header = re.match(r"\s*#\s*@package[ \t]+(\S+)", text)  # whatever Hydra takes for one
    package = header[1] if header else file.parent.name
    return "" if package == "_global_" else package


def check_headers(config: DictConfig, files: Sequence[Path]) -> None:
    """Finds task and experiment files without their first line: Hydra puts all they say below ``task``.

    Raises:
        ConfigError: Every such file.
    """
    problems = [
        Problem(f"{_short(file)}, line 1", f"must be `{GLOBAL}`", "Without it, what the file says has no effect.")
        for file in files
        if file.parent.name in ("task", "experiment") and file.parent.name in config
    ]
    if problems:
        raise ConfigError(problems)


def origin_of(overrides: Sequence[str], files: Sequence[Path], groups: Iterable[str] = ()) -> Origin:
    """Finds where a key path was set: on the command line, or in which line of which file.

    Args:
        overrides: Of the command line.
        files: The files that were composed, the one that wins last.
        groups: Config groups: an override of one chooses a file, and says nothing of the keys in it.
    """
    on_command_line = {o.lstrip("+~").partition("=")[0] for o in overrides if "=" in o or o.startswith("~")}
    values = tuple(key for key in on_command_line if key not in groups)

    def find(path: str) -> str | None:
        if path in on_command_line or any(
            path.startswith((f"{key}.", f"{key}[")) or key.startswith(f"{path}.") for key in values
        ):
            return "command line"
        keys = re.sub(r"\[(\d+)\]", r".\1", path).split(".")
        while keys:
            for file in reversed(files):
                line = _line_in(file, keys)
                if line is not None:
                    return f"{_short(file)}, line {line}"
            keys.pop()  # a key that must be given is missing where its parent stands
            if any(key.startswith(".".join([*keys, ""])) for key in values if keys):
                return "command line"
        return None

    return find


def composed_files(folders: Sequence[Path], choices: Mapping[str, Any]) -> list[Path]:
    """The files that were chosen, task and experiment last: they win. The main one holds defaults, never a mistake."""
    files = []
    for group, choice in sorted(choices.items(), key=lambda item: (item[0] == "experiment", item[0] == "task")):
        names = choice if isinstance(choice, list) else [choice]
        files += [f for name in names for folder in folders if (f := folder / group / f"{name}.yaml").is_file()]
    return files


def friendly(error: Exception, overrides: Sequence[str], folders: Sequence[Path]) -> str | None:
    """Our message for an exception of Hydra, OmegaConf or YAML, or None if it is none that a user can mend."""
    if isinstance(error, MissingConfigException):
        return str(_no_such_choice(error, overrides, folders))
    if isinstance(error, yaml.YAMLError):
        mark = getattr(error, "problem_mark", None)
        place = f"{_short(Path(mark.name))}, line {mark.line + 1}" if mark is not None else "a configuration file"
        return str(Problem(place, f"is not valid YAML ({getattr(error, 'problem', None) or 'cannot be read'})"))
    if isinstance(error, UnicodeDecodeError):
        broken = [file for folder in folders[1:] for file in sorted(folder.rglob("*.yaml")) if not _is_utf8(file)]
        return str(Problem(_short(broken[0]), "is not UTF-8 text", "Save it as UTF-8.")) if broken else None
    if isinstance(error, OSError) and error.filename and _makes_folder(error):
        return str(folder_error(error.filename, error))
    if isinstance(error, ValueError) and (header := _HEADER_REFUSED.fullmatch(str(error))):
        return str(_header_refused(header[1], folders))
    if isinstance(error, RecursionError):
        return "the configuration refers to itself without end. Look at `defaults:` lists and ${...} in your files."
    if isinstance(error, TypeError) and (index := re.fullmatch(r"Index '(.+)' \(str\) is not an int.*", str(error))):
        hint = "Write tasks as a mapping from names to options, then tasks.NAME.key=value works."
        return str(Problem("command line", f"'{index[1]}' cannot be set in a list", hint))
    if isinstance(error, HydraException | OmegaConfBaseException) or "defaults list" in str(error):
        return str(_not_composed(error, folders))
    return None


def _header_refused(header: str, folders: Sequence[Path]) -> Problem:
    """A header that Hydra does not take, in the file that it stands in."""
    lines = re.compile(rf"\s*#+\s*{re.escape(header)}\s*(\n|$)")
    files = [file for folder in folders[1:] for file in sorted(folder.rglob("*.yaml")) if _is_utf8(file)]
    named = [_short(file) for file in files if lines.match(file.read_text(encoding="utf-8"))]
    where = named[0] if named else "a configuration file"
    return Problem(where, f"has the header `# {header}`, which is no key and one value", "Write `# @package _global_`.")


def _makes_folder(error: OSError) -> bool:
    """Whether a folder was being made: Hydra makes those of a run and of a sweep before ours are asked."""
    return any(frame.f_code.co_name == "mkdir" for frame, _ in traceback.walk_tb(error.__traceback__))


def _not_composed(error: BaseException, folders: Sequence[Path]) -> Problem:
    """What Hydra could not put together, in our words where it is one of the usual mistakes."""
    chain = [error]
    while (cause := chain[-1].__cause__) is not None:
        chain.append(cause)
    text = "\n".join(str(e) for e in chain)
    said_in = re.search(r"[Ii]n '([^']+)'", text)
    where = _file_of(said_in[1], folders) if said_in else "the configuration"
    if "Cannot merge DictConfig with ListConfig" in text or "Cannot merge ListConfig with DictConfig" in text:
        return Problem(where, "gives a list where a mapping stands, or the other way round", "Both files must agree.")
    if named := re.search(r"Could not override '([^']+)'\. No match in the defaults list", text):
        group = named[1].partition("@")[0]
        if "/" in group:  # `override encoder` means a group below the file's own
            hint = f"Write `- override /{group.rpartition('/')[2]}: ...`, with a slash."
        else:
            hint = did_you_mean(group, config_groups(folders))
        return Problem(where, f"overrides the group '{group}', which there is not", hint)
    if named := re.search(r"Could not delete from config\. '([^']+)'", text):
        return Problem(f"~{named[1]} (command line)", "cannot be taken out: there is no such key")
    if named := re.search(r"^(\S+) appears more than once", text):
        hint = f"In a file, write `- override /{named[1]}: ...`; on the command line, without +."
        return Problem(named[1], "is chosen twice", hint)
    if named := re.search(r"Could not override '([^']+)'", text):
        return Problem(f"{named[1]} (command line)", "unknown key")
    reasons = [reason.splitlines()[0].rstrip(".") for e in chain if (reason := str(e).strip())]
    what = f"cannot be read ({reasons[-1] if reasons else type(error).__name__})"
    if key := re.search(r"full_key: (\S+)", text):
        own = [file for folder in folders[1:] for file in sorted(folder.rglob("*.yaml"))]
        return with_origin(Problem(key[1], what), origin_of([], own))
    return Problem(where, what)


def _plain(node: Any, where: str, problems: list[Problem], without: Sequence[str] = ()) -> Any:
    if isinstance(node, DictConfig) and node._is_none():
        return None
    if isinstance(node, DictConfig):
        keys = [key for key in node if key not in without]
        return {key: _child(node, key, f"{where}.{key!s}" if where else str(key), problems) for key in keys}
    if isinstance(node, ListConfig):
        return [_child(node, i, f"{where}[{i}]", problems) for i in range(len(node))]
    return node


def _missing(where: str) -> Problem:
    return Problem(where, "must be set, got ???", f"Example: {where}=...")


def _child(node: DictConfig | ListConfig, key: Any, where: str, problems: list[Problem]) -> Any:
    if OmegaConf.is_missing(node, key):
        problems.append(_missing(where))
        return None
    try:
        return _plain(node[key], where, problems)
    except OmegaConfBaseException as error:
        raw = OmegaConf.to_container(node, resolve=False)
        text = raw[key] if isinstance(raw, dict | list) else raw
        reason = str(error).splitlines()[0]
        problems.append(Problem(where, f"cannot be resolved, got '{text}' ({reason})"))
        return None


def _line_in(file: Path, keys: Sequence[str]) -> int | None:
    """The line of a key path in a YAML file, considering a ``# @package`` header and the folder it is in."""
    try:
        text = file.read_text(encoding="utf-8")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except (OSError, yaml.YAMLError, UnicodeDecodeError):
        return None
    above = _package(file, text).split(".") if _package(file, text) else []
    if list(keys[: len(above)]) != above:
        return None
    keys = list(keys[len(above) :])
    if not keys:
        return 1 if above else None
    line = None
    while keys:
        for length in range(1, len(keys) + 1):  # a name may hold a dot
            found = _entry(node, ".".join(keys[:length]))
            if found is not None:
                break
        else:
            return None
        line, node, keys = found[0].start_mark.line + 1, found[1], keys[length:]
    return line


def _entry(node: yaml.Node | None, key: str) -> tuple[yaml.Node, yaml.Node] | None:
    """The key node and value node of an entry of a mapping or list."""
    if isinstance(node, yaml.SequenceNode):
        return _list_entry(node, key)
    if not isinstance(node, yaml.MappingNode):
        return None
    return next(((k, v) for k, v in node.value if key in (k.value, _boolean(k))), None)


def _boolean(key: yaml.Node) -> str | None:
    """``True`` for the key ``on``: what becomes of it in YAML."""
    if key.tag != "tag:yaml.org,2002:bool":
        return None
    return str(yaml.SafeLoader.bool_values[key.value.lower()])


def _list_entry(node: yaml.SequenceNode, key: str) -> tuple[yaml.Node, yaml.Node] | None:
    """An entry of a list by position, or (tasks as a list) by its name."""
    for i, entry in enumerate(node.value):
        names = [v.value for k, v in entry.value if k.value == "name"] if isinstance(entry, yaml.MappingNode) else []
        if str(i) == key or key in names:
            return entry, entry
    return None


def _no_such_choice(error: MissingConfigException, overrides: Sequence[str], folders: Sequence[Path]) -> Problem:
    groups = config_groups(folders)
    name = str(error.missing_cfg_file or "")
    group, _, choice = name.rpartition("/")
    if not group:
        return Problem("--config-name", f"there is no {choice}.yaml")
    if (group, choice) in EXTRAS:
        extra = EXTRAS[group, choice]
        what = f"'{choice}' needs the package {extra[1]}, which is not installed"
        return Problem(group, what, f'Install it: pip install "mtl-train[{extra[0]}]".')
    if group.startswith("hydra/"):
        return Problem(group, f"there is no '{choice}'", did_you_mean(choice, error.options or []))
    if group not in groups:
        where = f"{group} (command line)" if _sets(group, choice, overrides) else group
        return Problem(where, "no such config group", did_you_mean(group, groups))
    place = "command line" if _sets(group, choice, overrides) else _chosen_in(group, choice, folders)
    where = f"{group} ({place})" if place else group
    hint = did_you_mean(choice, groups[group])
    for folder in folders[1:]:
        if (folder / group / f"{choice}.yml").is_file():
            hint = f"Rename {_short(folder / group / choice)}.yml to {choice}.yaml."
        elif folder.name == group and (folder / f"{choice}.yaml").is_file():
            hint = f"Write --config-dir {_short(folder.absolute().parent)}, the folder above {group}/."
    return Problem(where, f"there is no {group} '{choice}'", hint)


def _sets(group: str, choice: str, overrides: Sequence[str]) -> bool:
    pairs = [override.lstrip("+/").partition("=") for override in overrides]
    return any(key.partition("@")[0] == group and choice in value for key, _, value in pairs)


def _chosen_in(group: str, choice: str, folders: Sequence[Path]) -> str | None:
    """The file and line of the user's that chooses ``choice`` in its defaults list."""
    wanted = re.compile(rf"-\s*(override\s+)?/?{re.escape(group)}\s*:\s*['\"]?{re.escape(choice)}['\"]?\s*(#.*)?")
    for folder in folders[1:]:
        for file in sorted(folder.rglob("*.yaml")):
            for number, line in enumerate(file.read_text("utf-8", errors="replace").splitlines(), start=1):
                if wanted.fullmatch(line.strip()):
                    return f"{_short(file)}, line {number}"
    return None


def _file_of(name: str, folders: Sequence[Path]) -> str:
    """A configuration as people know it: ``task/mine`` is conf/task/mine.yaml."""
    files = [file for folder in folders if (file := folder / f"{name}.yaml").is_file()]
    return _short(files[0]) if files else name


def _is_utf8(file: Path) -> bool:
    try:
        file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False
    return True


def _no_choice(override: Override, text: str) -> str | None:
    """What a group's override gives, as ``text`` or within it, that names no choice; None if all of it does."""
    value = None if override.is_delete() else override.value()
    if isinstance(value, ChoiceSweep):
        others = [each for each in value.list if not isinstance(each, str | QuotedString | list)]
        return json.dumps(others[0]) if others else None
    named = override.is_delete() or override.is_sweep_override() or isinstance(value, list)
    return None if named or (isinstance(value, str) and value) else text


def _short(path: Path) -> str:
    """A path as people would type it: relative to here if it is below."""
    shipped = config_dir()
    if path.is_relative_to(shipped):
        return f"configs/{path.relative_to(shipped).as_posix()}"
    relative = os.path.relpath(path)
    return relative if not relative.startswith("..") else str(path)
