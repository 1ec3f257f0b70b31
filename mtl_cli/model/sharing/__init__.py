"""Sharing architectures: how tasks share encoders."""

from mtl_cli.model.sharing.base import Sharing

__all__ = ["Sharing"]
