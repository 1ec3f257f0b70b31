"""THE TRAINING LOOP: one step, the epochs around it, and evaluation of a whole split."""

from mtl_cli.loop.evaluate import evaluate
from mtl_cli.loop.objective import Objective
from mtl_cli.loop.step import Learner, train_step
from mtl_cli.loop.trainer import Trainer

__all__ = ["Learner", "Objective", "Trainer", "evaluate", "train_step"]
