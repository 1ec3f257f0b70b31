"""Plots as PNG images: drawn from their SVG by resvg, which comes with the extra ``png``."""

from __future__ import annotations

from collections.abc import Callable

from mtl_cli.errors import ConfigError, Problem

_ZOOM = 3  # pixels for each unit of a plot: sharp in print at the width of a column
_LETTER = '<svg xmlns="http://www.w3.org/2000/svg" width="20" height="20"><text x="2" y="18">{}</text></svg>'


def painter() -> Callable[[str], bytes]:
    """What makes a PNG of an SVG.

    Raises:
        ConfigError: resvg is not installed, or there is no font on this machine: the plots would be without words.
    """
    try:
        from resvg_py import svg_to_bytes
    except ImportError:
        what = "'png' needs the package resvg-py, which is not installed"
        raise ConfigError(Problem("--format", what, 'Install it: pip install "mtl-train[png]".')) from None

    def paint(svg: str) -> bytes:
        return bytes(svg_to_bytes(svg_string=svg, zoom=_ZOOM))

    if paint(_LETTER.format("M")) == paint(_LETTER.format("")):
        hint = "Install one (DejaVu, say), or use --format svg."
        raise ConfigError(Problem("--format", "'png' needs a font, and this machine has none", hint))
    return paint
