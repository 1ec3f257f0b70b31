"""A configuration as one flat mapping, for comparing runs."""

from __future__ import annotations

from typing import Any


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
