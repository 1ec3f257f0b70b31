"""What Hydra, OmegaConf and YAML refuse, in our words."""

from __future__ import annotations

import re
import traceback
from collections.abc import Sequence
from pathlib import Path

import yaml
from hydra.errors import HydraException, MissingConfigException
from omegaconf.errors import OmegaConfBaseException

from mtl_cli.composition.files import config_groups, is_utf8, short_path
from mtl_cli.composition.origins import origin_of
from mtl_cli.errors import Problem, did_you_mean
from mtl_cli.run import folder_error
from mtl_cli.schema import with_origin

# Hydra's words for a header that it cannot read.
_HEADER_REFUSED = re.compile(r"(?:Too many components in|Expected header format: KEY VALUE, got) '(.*)'")
#: Choices that a package of Hydra's brings: our extra, and the package.
_EXTRAS = {
    ("hydra/launcher", "joblib"): ("joblib", "hydra-joblib-launcher"),
    ("hydra/launcher", "submitit_local"): ("submitit", "hydra-submitit-launcher"),
    ("hydra/launcher", "submitit_slurm"): ("submitit", "hydra-submitit-launcher"),
    ("hydra/launcher", "ray"): ("ray", "hydra-ray-launcher"),
    ("hydra/sweeper", "optuna"): ("optuna", "hydra-optuna-sweeper"),
}


def friendly(error: Exception, overrides: Sequence[str], folders: Sequence[Path]) -> str | None:
    """Our message for an exception of Hydra, OmegaConf or YAML, or None if it is none that a user can mend."""
    if isinstance(error, MissingConfigException):
        return str(_no_such_choice(error, overrides, folders))
    if isinstance(error, yaml.YAMLError):
        mark = getattr(error, "problem_mark", None)
        place = f"{short_path(Path(mark.name))}, line {mark.line + 1}" if mark is not None else "a configuration file"
        return str(Problem(place, f"is not valid YAML ({getattr(error, 'problem', None) or 'cannot be read'})"))
    if isinstance(error, UnicodeDecodeError):
        broken = [file for folder in folders[1:] for file in sorted(folder.rglob("*.yaml")) if not is_utf8(file)]
        return str(Problem(short_path(broken[0]), "is not UTF-8 text", "Save it as UTF-8.")) if broken else None
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
    files = [file for folder in folders[1:] for file in sorted(folder.rglob("*.yaml")) if is_utf8(file)]
    named = [short_path(file) for file in files if lines.match(file.read_text(encoding="utf-8"))]
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


def _no_such_choice(error: MissingConfigException, overrides: Sequence[str], folders: Sequence[Path]) -> Problem:
    groups = config_groups(folders)
    name = str(error.missing_cfg_file or "")
    group, _, choice = name.rpartition("/")
    if not group:
        return Problem("--config-name", f"there is no {choice}.yaml")
    if (group, choice) in _EXTRAS:
        extra = _EXTRAS[group, choice]
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
            hint = f"Rename {short_path(folder / group / choice)}.yml to {choice}.yaml."
        elif folder.name == group and (folder / f"{choice}.yaml").is_file():
            hint = f"Write --config-dir {short_path(folder.absolute().parent)}, the folder above {group}/."
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
                    return f"{short_path(file)}, line {number}"
    return None


def _file_of(name: str, folders: Sequence[Path]) -> str:
    """A configuration as people know it: ``task/mine`` is conf/task/mine.yaml."""
    files = [file for folder in folders if (file := folder / f"{name}.yaml").is_file()]
    return short_path(files[0]) if files else name
