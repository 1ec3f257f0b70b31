"""KIND = head outputs + loss per row + metrics + decoding. One file per kind."""

from mtl_cli.tasks._numbers import read_numbers
from mtl_cli.tasks.base import Kind, LabelCounts, Task, first_columns, likeness, target_columns

__all__ = ["Kind", "LabelCounts", "Task", "first_columns", "likeness", "read_numbers", "target_columns"]
