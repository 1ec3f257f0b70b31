"""ONE RUN from a checked configuration to its summary: what ``mtl-train`` does for every job."""

from mtl_cli.job.run_training import audit, train, training
from mtl_cli.job.setting_up import set_up
from mtl_cli.job.stop_signals import signals
from mtl_cli.loop.trainer import Interrupted

__all__ = ["Interrupted", "audit", "set_up", "signals", "train", "training"]
