"""INPUTS -> SHARED FEATURES -> OUTPUTS PER TASK."""

from mtl_cli.model.model import MultiTaskModel, ParameterCounts
from mtl_cli.model.ownership import Ownership

__all__ = ["MultiTaskModel", "Ownership", "ParameterCounts"]
