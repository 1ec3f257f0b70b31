"""The fixed part of the configuration, and ``validate``: all mistakes at once, before any data are loaded.

The options of components (encoder, sharing, ...) are not listed here: their constructors say them.
"""

from mtl_cli.schema.components import is_per_task
from mtl_cli.schema.config import Component, RunConfig, SourceConfig, TaskConfig
from mtl_cli.schema.inputs import EVERY_COLUMN, input_entries
from mtl_cli.schema.key_hints import Origin, with_origin
from mtl_cli.schema.metrics import best_by, is_higher_better, task_metrics
from mtl_cli.schema.options import (
    DataOptions,
    FeatureOptions,
    ImageOptions,
    MissingInputs,
    MixingMethod,
    MixingOptions,
    SplitOptions,
    TaskOptions,
    TextOptions,
    TrainerOptions,
)
from mtl_cli.schema.own_options import with_own_options
from mtl_cli.schema.parts import TOP_KEYS
from mtl_cli.schema.streaming import why_whole
from mtl_cli.schema.tasks import with_tasks_by_name
from mtl_cli.schema.trainer import check_device, seconds
from mtl_cli.schema.validation import validate

__all__ = [
    "EVERY_COLUMN",
    "TOP_KEYS",
    "Component",
    "DataOptions",
    "FeatureOptions",
    "ImageOptions",
    "MissingInputs",
    "MixingMethod",
    "MixingOptions",
    "Origin",
    "RunConfig",
    "SourceConfig",
    "SplitOptions",
    "TaskConfig",
    "TaskOptions",
    "TextOptions",
    "TrainerOptions",
    "best_by",
    "check_device",
    "input_entries",
    "is_higher_better",
    "is_per_task",
    "seconds",
    "task_metrics",
    "validate",
    "why_whole",
    "with_origin",
    "with_own_options",
    "with_tasks_by_name",
]
