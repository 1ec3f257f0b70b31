"""Encoders: inputs to features (B, D)."""

from mtl_cli.model.encoders.base import Encoder, EncoderMaker

__all__ = ["Encoder", "EncoderMaker"]
