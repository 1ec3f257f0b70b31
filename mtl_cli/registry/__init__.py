"""Names to classes. A constructor's keyword-only arguments ARE its options.

A component is a class in a file of its own, registered under the file's name::

    @SHARINGS.register("hard")
    class HardSharing(Sharing):
        def __init__(self, make_encoder, task_names, *, dropout: Fraction = 0.0): ...

Positional arguments are facts known at run time; keyword-only ones are options that a configuration may set,
typed, defaulted and documented in that one place. To check a configuration before PyTorch is imported, the
signatures of the shipped components are read from their source; ``plugins`` are imported.
"""

from mtl_cli.registry.class_checks import from_outside
from mtl_cli.registry.conforming import conform, conform_mapping
from mtl_cli.registry.mistakes import expect_shape, mistakes_in_components
from mtl_cli.registry.options import REQUIRED, Option, options_of
from mtl_cli.registry.registries import (
    ALL,
    BALANCINGS,
    ENCODERS,
    KINDS,
    LOGGERS,
    OPTIMIZERS,
    SCHEDULERS,
    SHARINGS,
    SOURCES,
    Registry,
    describe_component,
)

__all__ = [
    "ALL",
    "BALANCINGS",
    "ENCODERS",
    "KINDS",
    "LOGGERS",
    "OPTIMIZERS",
    "REQUIRED",
    "SCHEDULERS",
    "SHARINGS",
    "SOURCES",
    "Option",
    "Registry",
    "conform",
    "conform_mapping",
    "describe_component",
    "expect_shape",
    "from_outside",
    "mistakes_in_components",
    "options_of",
]
