"""``python -m mtl_cli.cli`` is ``mtl-train``."""

from mtl_cli.cli import main

main()
