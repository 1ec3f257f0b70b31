"""Encoders: inputs to features (B, D)."""

from mtl_cli.model.encoders.base import Encoder

__all__ = ["Encoder"]
