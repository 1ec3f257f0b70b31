"""Between Hydra and the rest: overrides in, plain mappings and readable errors out.

Hydra would refuse ``tasks.income.weight=2`` where the file does not list the option, and accept ``+sed=1``. Here every
override is applied, and ``schema.validate`` alone decides what is a key: one rule, one message.
"""

from mtl_cli.composition.files import (
    check_headers,
    check_shadowed,
    composed_files,
    config_dir,
    config_groups,
    search_path,
)
from mtl_cli.composition.flags import (
    check_flags,
    flag_names,
    mode_by_flags,
    split_arguments,
    user_config_dir,
    without_config_dir,
)
from mtl_cli.composition.messages import friendly
from mtl_cli.composition.origins import origin_of
from mtl_cli.composition.overrides import as_written, check_overrides, forced, unresolved
from mtl_cli.composition.values import plain, unset

__all__ = [
    "as_written",
    "check_flags",
    "check_headers",
    "check_overrides",
    "check_shadowed",
    "composed_files",
    "config_dir",
    "config_groups",
    "flag_names",
    "forced",
    "friendly",
    "mode_by_flags",
    "origin_of",
    "plain",
    "search_path",
    "split_arguments",
    "unresolved",
    "unset",
    "user_config_dir",
    "without_config_dir",
]
