"""COMPOSITION ROOT: from a validated configuration to the objects of a run."""

from mtl_cli.build.data import (
    DATA_FORMAT,
    Data,
    build_data,
    build_mixing,
    find_rankings,
    load_fitted,
    model_spec,
    read_inputs,
)
from mtl_cli.build.device import autocast_type, choose_device, choose_threads
from mtl_cli.build.features import check_features
from mtl_cli.build.labels import encode_labels, tasks_without_columns, tasks_without_weights
from mtl_cli.build.learner import (
    build_learner,
    build_loggers,
    build_model,
    build_monitor,
    build_sharing,
    place_as_trained,
    tasks_with_head,
)
from mtl_cli.build.lone_rows import refuse_lone_rows
from mtl_cli.build.sources import build_source, choose_source, name_source, read_rows, streams

__all__ = [
    "DATA_FORMAT",
    "Data",
    "autocast_type",
    "build_data",
    "build_learner",
    "build_loggers",
    "build_mixing",
    "build_model",
    "build_monitor",
    "build_sharing",
    "build_source",
    "check_features",
    "choose_device",
    "choose_source",
    "choose_threads",
    "encode_labels",
    "find_rankings",
    "load_fitted",
    "model_spec",
    "name_source",
    "place_as_trained",
    "read_inputs",
    "read_rows",
    "refuse_lone_rows",
    "streams",
    "tasks_with_head",
    "tasks_without_columns",
    "tasks_without_weights",
]
