"""The plots of a page as files of their own."""

from __future__ import annotations

import re
from html import unescape

from mtl_cli.report.style import DRAWING, STYLE

_FIGURE = re.compile(r"<figure><figcaption>(.*?)</figcaption>(.*?)</figure>", re.DOTALL)
_DRAWN = re.compile(r'<svg viewBox="0 0 (\d+) (\d+)" role="img">(.*?)</svg>(.*)', re.DOTALL)
_KEY = re.compile(r'<i class="swatch ([^"]*)"></i>(.*?)</span>')
_HEAD, _KEY_HEIGHT = 26, 16


def plot_files(page: str) -> dict[str, str]:
    """Every plot of a page as a whole SVG file in light colours, with its title and legend, by file name.

    Args:
        page: What ``run_page`` or ``sweep_page`` gave.
    """
    files = {}
    for number, (title, plot) in enumerate(_FIGURE.findall(page), start=1):
        drawn = _DRAWN.match(plot)
        if drawn is None:  # it says that there are no numbers
            continue
        name = re.sub(r"[^A-Za-z0-9]+", "-", unescape(title)).strip("-")[:60]
        files[f"{number:02}-{name}.svg"] = _file(title, drawn)
    return files


def _file(title: str, drawn: re.Match[str]) -> str:
    wide, high, body, below = int(drawn[1]), int(drawn[2]), drawn[3], drawn[4]
    keys = _KEY.findall(below)
    legend = []
    for i, (colour, name) in enumerate(keys):
        y = _HEAD + high + _KEY_HEIGHT * i
        legend.append(f'<rect class="swatch {colour}" x="58" y="{y}" width="10" height="10"/>')
        legend.append(f'<text class="name" x="74" y="{y + 9}">{name}</text>')
    total = _HEAD + high + _KEY_HEIGHT * len(keys) + 6
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {total}" width="{wide}" height="{total}">'
        f'<style>{_in_light(DRAWING)}svg{{font-family:system-ui,sans-serif}}</style><rect width="100%" height="100%" '
        f'fill="#fff"/><text class="name" x="8" y="17">{title}</text>'
        f'<g transform="translate(0 {_HEAD})">{body}</g>{"".join(legend)}</svg>\n'
    )


def _in_light(rules: str) -> str:
    """Rules with the light colours in place of variables, which not every program knows."""
    light = dict(re.findall(r"--(\w+):([^;}]+)", STYLE.partition("@media")[0]))
    return re.sub(r"var\(--(\w+)\)", lambda found: light[found[1]], rules)
