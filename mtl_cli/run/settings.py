"""The configuration of a run as plain mappings: read from its folder, and flat, for comparing runs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import yaml

from mtl_cli.run.atomic import finite

# LibYAML's, where PyYAML has it: the other one takes minutes for a few thousand brackets. Both make plain values only.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
_MOST_VALUES = 1_000_000  # a few lines of YAML can stand for more values than any memory holds


def parse_settings(text: str) -> dict[str, Any]:
    """The mapping that a config.yaml holds. Tags that stand for Python objects are refused, nothing is run.

    Raises:
        ValueError: It is no plain YAML mapping; says why.

    Example:
        >>> parse_settings("seed: 0")
        {'seed': 0}
        >>> parse_settings("seed: !!python/object/apply:os.system [ls]")
        Traceback (most recent call last):
        ...
        ValueError: no plain YAML (could not determine a constructor for the tag \
'tag:yaml.org,2002:python/object/apply:os.system')
    """
    try:
        settings = yaml.load(text, Loader=_LOADER)
    except yaml.YAMLError as error:
        reason = getattr(error, "problem", None) or " ".join(str(error).split())[:200]
        raise ValueError(f"no plain YAML ({reason})") from None
    except (RecursionError, ValueError, OverflowError) as error:
        raise ValueError(f"no plain YAML ({type(error).__name__})") from None
    if not isinstance(settings, dict):
        raise ValueError(f"it holds no mapping, got {type(settings).__name__}")
    waiting: list[Any] = [settings]
    count = 0
    while waiting:
        node = waiting.pop()
        inner = list(node.values()) if isinstance(node, dict) else node if isinstance(node, list) else []
        count += len(inner)
        if count > _MOST_VALUES:
            raise ValueError(f"it stands for more than {_MOST_VALUES:,} values")
        waiting += [value for value in inner if isinstance(value, dict | list)]
    return settings


def settings_text(settings: Mapping[str, Any]) -> str:
    r"""Plain mappings and values as the text of a config.yaml.

    Example:
        >>> settings_text({"seed": 0, "only": None})
        'seed: 0\nonly: null\n'
    """
    return str(yaml.dump(dict(settings), Dumper=_DUMPER, sort_keys=False, allow_unicode=True))


def digest(value: Any) -> str:
    """SHA-256, in hex, of plain JSON values, the same after a file.

    Example:
        >>> digest({"a": [1, 0.1], "b": None}) == digest({"b": None, "a": (1, 0.1)})
        True
    """
    text = json.dumps(finite(value), sort_keys=True, separators=(",", ":"), ensure_ascii=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def flatten(node: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, with dotted keys; lists and empty mappings are values.

    Example:
        >>> flatten({"optimizer": {"lr": 0.1}, "only": ["a", "b"], "extra": {}})
        {'optimizer.lr': 0.1, 'only': ['a', 'b'], 'extra': {}}
    """
    if not isinstance(node, dict) or not node:
        return {prefix: node}
    parts = (flatten(value, f"{prefix}.{key}" if prefix else str(key)) for key, value in node.items())
    return {key: value for part in parts for key, value in part.items()}
