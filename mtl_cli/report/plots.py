"""A plot: a figure of the page, and a file of its own."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import chain, count
from textwrap import wrap

from mtl_cli.report.style import DRAWING, STYLE
from mtl_cli.report.svg import WIDTH, Drawing

#: So much of one sort is drawn: a run with hundreds of tasks stays a page.
MOST_DRAWN = 24
_LINE = 16  # pixels
_LETTERS = 72  # of a line across the whole width
_NOT_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")


@dataclass(frozen=True)
class Plot:
    """A drawing with its title.

    Args:
        name: What it shows, in a few words that stay the same from run to run: the name of its file.
        title: Above it.
        drawing: What is drawn.
        told: What a reader learns from it, a line or more under the title.
    """

    name: str
    title: str
    drawing: Drawing
    told: Sequence[str] = ()

    def figure(self) -> str:
        """As HTML, which takes its colours from the page."""
        drawing = self.drawing
        body = '<p class="none">no numbers</p>'
        if drawing.body:
            body = f'<svg viewBox="0 0 {WIDTH} {drawing.height}" role="img">{drawing.body}</svg>'
        if drawing.legend:
            items = (
                f'<span class="key"><i class="swatch {colour}"></i>{escape(name)}</span>'
                for name, colour in drawing.legend
            )
            body += f'<p class="legend">{"".join(items)}</p>'
        told = "".join(f'<p class="told">{escape(line)}</p>' for line in self.told)
        return f"<figure><figcaption>{escape(self.title)}</figcaption>{told}{body}</figure>"

    def file(self) -> str:
        """As a whole SVG file in light colours, with its title and legend."""
        drawing = self.drawing
        lines = [("name", line) for line in wrap(self.title, _LETTERS)]
        lines += [("told", line) for told in self.told for line in wrap(told, _LETTERS)]
        parts = [_text(8, 17 + _LINE * i, line, kind) for i, (kind, line) in enumerate(lines)]
        top = 10 + _LINE * len(lines)
        parts.append(f'<g transform="translate(0 {top})">{drawing.body}</g>')
        down = top + drawing.height
        for name, colour in drawing.legend:
            if " " in colour:  # a style of line besides
                parts.append(f'<line class="line {colour}" x1="54" x2="68" y1="{down + 5}" y2="{down + 5}"/>')
            else:
                parts.append(f'<rect class="swatch {colour}" x="58" y="{down}" width="10" height="10"/>')
            for line in wrap(name, _LETTERS - 12):
                parts.append(_text(74, down + 9, line))
                down += _LINE
        size = f'viewBox="0 0 {WIDTH} {down + 6}" width="{WIDTH}" height="{down + 6}"'
        style = f"{_in_light(DRAWING)}svg{{font-family:sans-serif}}"
        text = (
            f'<svg xmlns="http://www.w3.org/2000/svg" {size}><title>{escape(self.title)}</title><style>{style}</style>'
            f'<rect width="100%" height="100%" fill="#fff"/>{"".join(parts)}</svg>\n'
        )
        return _NOT_XML.sub("\ufffd", text)


def plot_files(plots: Sequence[Plot]) -> dict[str, str]:
    """The SVG file of each plot that has numbers to show, by its name without a suffix.

    Names differ in more than upper and lower case.

    Example:
        >>> plot = Plot("learning-curve-income (EUR)", "income: r2 (val)", Drawing("<g/>"))
        >>> list(plot_files([plot, plot]))
        ['learning-curve-income-EUR', 'learning-curve-income-EUR-2']
    """
    files: dict[str, str] = {}
    taken: set[str] = set()
    for plot in plots:
        if plot.drawing.body:
            name = re.sub(r"\W+", "-", plot.name).strip("-")[:60]
            names = chain([name], (f"{name}-{number}" for number in count(2)))
            free = next(one for one in names if one.lower() not in taken)
            taken.add(free.lower())
            files[free] = plot.file()
    return files


def in_order(tasks: Iterable[str], order: Sequence[str]) -> list[str]:
    """Tasks in the user's order, not in that of the training, which puts those together that are alike.

    Args:
        tasks: Names of tasks.
        order: All tasks in the user's order; nothing if that is not known.
    """
    return sorted(tasks, key=lambda task: order.index(task) if task in order else len(order))


def not_all(count: int, what: str, where: str, most: int = MOST_DRAWN) -> list[str]:
    """A line on what is not drawn; none if all is.

    Example:
        >>> not_all(60, "tasks", "metrics.jsonl"), not_all(24, "tasks", "metrics.jsonl")
        (['The first 24 of 60 tasks; metrics.jsonl has all.'], [])
    """
    return [f"The first {most} of {count} {what}; {where} has all."] if count > most else []


def _text(x: int, y: int, text: str, kind: str = "name") -> str:
    return f'<text class="{kind}" x="{x}" y="{y}">{escape(text)}</text>'


def _in_light(rules: str) -> str:
    """Rules with the light colours in place of variables, which not every program knows."""
    light = dict(re.findall(r"--(\w+):([^;}]+)", STYLE.partition("@media")[0]))
    return re.sub(r"var\(--(\w+)\)", lambda found: light[found[1]], rules)
