"""TRACKERS = other places that a run's metrics go to, beside its own metrics.jsonl. One file per tracker."""

from mtl_cli.run.loggers.base import Logger, RunFacts
from mtl_cli.run.loggers.following import Followers

__all__ = ["Followers", "Logger", "RunFacts"]
