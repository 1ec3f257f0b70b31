"""``python -m mtl_cli`` is ``mtl-train``."""

from mtl_cli.cli import main

main()
