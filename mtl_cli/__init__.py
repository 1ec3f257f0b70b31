"""mtl-train: multi-task learning in PyTorch from one YAML file.

``from mtl_cli import MultiTaskModel`` gives the model class that every run trains. The import is lazy, so
that the command line can answer ``--help`` and configuration mistakes without loading PyTorch.
"""

from typing import TYPE_CHECKING

__version__ = "0.1.0"
__all__ = ["MultiTaskModel", "__version__"]

if TYPE_CHECKING:
    from mtl_cli.model import MultiTaskModel


def __getattr__(name: str) -> object:
    if name == "MultiTaskModel":
        from mtl_cli.model import MultiTaskModel

        return MultiTaskModel
    raise AttributeError(f"module 'mtl_cli' has no attribute {name!r}")
