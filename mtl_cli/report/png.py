"""Plots as PNG images: drawn from their SVG by resvg, which comes with the extra ``png``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from mtl_cli.errors import ConfigError, Problem

_ZOOM = 3  # pixels for each unit of a plot: sharp in print at the width of a column
_LETTER = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="20" height="20">'
    '<text font-family="sans-serif" x="2" y="18">{}</text></svg>'
)
# What `sans-serif` may be: resvg asks no font service, and takes one family, which only some machines have.
_FAMILIES = ("Liberation Sans", "DejaVu Sans", "Noto Sans", "Arial", "Helvetica", "FreeSans", "Open Sans", "Roboto")


def painter() -> Callable[[str], bytes]:
    """What makes a PNG of an SVG.

    Raises:
        ConfigError: resvg is not installed, or none of the fonts: the plots would be without words.
    """
    try:
        from resvg_py import svg_to_bytes
    except ImportError:
        what = "'png' needs the package resvg-py, which is not installed"
        raise ConfigError(Problem("--format", what, 'Install it: pip install "mtl-train[png]".')) from None

    for family in _FAMILIES:
        draw = partial(svg_to_bytes, zoom=_ZOOM, sans_serif_family=family)
        if draw(svg_string=_LETTER.format("M")) != draw(svg_string=_LETTER.format("")):
            return lambda svg: bytes(draw(svg_string=svg))
    what = f"'png' needs a font, and this machine has none of {', '.join(_FAMILIES)}"
    raise ConfigError(Problem("--format", what, "Install one, or use --format svg."))
