"""``mtl-train``: Hydra in, friendly errors and exit codes out."""

from mtl_cli.cli.command import main, run_command

__all__ = ["main", "run_command"]
