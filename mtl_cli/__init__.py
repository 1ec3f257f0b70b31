"""mtl-train: multi-task learning in PyTorch from one YAML file.

``from mtl_cli import MultiTaskModel`` gives the model class that every run trains, and ``load_run`` a trained model
with its preprocessing: ``load_run("runs/a").predict("new.csv")``. The imports are lazy, so that the command lines can
answer ``--help`` and configuration mistakes without loading PyTorch.
"""

from typing import TYPE_CHECKING

__version__ = "0.1.0"
__all__ = ["MultiTaskModel", "__version__", "load_run"]

if TYPE_CHECKING:
    from mtl_cli.model import MultiTaskModel
    from mtl_cli.trained import load_run


def __getattr__(name: str) -> object:
    if name == "MultiTaskModel":
        from mtl_cli.model import MultiTaskModel

        return MultiTaskModel
    if name == "load_run":
        from mtl_cli.trained import load_run

        return load_run
    raise AttributeError(f"module 'mtl_cli' has no attribute {name!r}")


def __dir__() -> list[str]:  # what completion in a notebook offers
    return sorted({*globals(), *__all__})
