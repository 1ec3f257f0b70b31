"""Sharing architectures: how tasks share encoders."""

from mtl_cli.model.sharing.base import Ordered, Sharing

__all__ = ["Ordered", "Sharing"]
