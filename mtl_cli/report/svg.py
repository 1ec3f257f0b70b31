"""Small plots as SVG. Colours come from the style sheet around them, so that a plot is right in light and dark."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import NamedTuple
from unicodedata import east_asian_width

from mtl_cli.report_text import with_deviation

WIDTH, HEIGHT = 460, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 68, 26, 12, 40
_COLOURS = 8  # classes c0 to c7 of the style sheet; more series repeat them in other styles of line
_STYLES = ("", " dashed", " dotted", " mixed")
_LETTER, _WIDE = 6.4, frozenset("MWmw<>=+&%@~")  # pixels of most letters, and those that take more


@dataclass(frozen=True)
class Series:
    """One line or set of points.

    Args:
        name: For the legend.
        points: ``(x, y)``; those with a y that is None are left out and break the line.
        counts: What each point stands for: the area of its dot grows with it. Empty: all dots are alike.
    """

    name: str
    points: Sequence[tuple[float, float | None]]
    counts: Sequence[int] = ()


@dataclass(frozen=True)
class Point:
    """One point with its name.

    Args:
        name: What it stands for.
        x: Where it is.
        y: Where it is.
        strong: Whether it stands out.
    """

    name: str
    x: float
    y: float
    strong: bool = True


@dataclass(frozen=True)
class Drawing:
    """What is drawn, without a title.

    Args:
        body: SVG elements on an area of ``WIDTH`` by ``height``; nothing if there are no numbers to draw.
        height: In pixels.
        legend: Name and class of each colour, if there are several.
    """

    body: str = ""
    height: int = HEIGHT
    legend: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class Bar:
    """One bar with its error.

    Args:
        name: What it stands for.
        value: Its length.
        error: Half the length of the whisker, or None.
    """

    name: str
    value: float
    error: float | None = None


def lines(series: Sequence[Series], x_label: str, y_label: str, *, log_x: bool = False) -> Drawing:
    """Lines over x, with a legend if there are several.

    Args:
        series: What to draw.
        x_label: Under the x axis.
        y_label: Beside the y axis.
        log_x: Logarithmic x axis; x must be above 0.
    """
    points = [(x, y) for s in series for x, y in s.points if y is not None and math.isfinite(y)]
    if not points:
        return Drawing()
    xs, ys = _Axis([x for x, _ in points], log=log_x, exact=True), _Axis([y for _, y in points])
    parts = [_grid(xs, ys, x_label, y_label)]
    for i, one in enumerate(series):
        kind = _class(i)
        counts = one.counts or [0] * len(one.points)
        stretches: list[list[tuple[float, float, int, float, float]]] = [[]]
        for (x, y), n in zip(one.points, counts, strict=True):
            if y is not None and math.isfinite(y):
                stretches[-1].append((x, y, n, _x(xs, x), _y(ys, y)))
            else:
                stretches.append([])
        known = [point for stretch in stretches for point in stretch]
        for stretch in stretches:
            path = " ".join(f"{x:.1f},{y:.1f}" for *_, x, y in stretch)
            if len(stretch) > 1:
                line = f'<polyline class="line {kind}" points="{path}"><title>{escape(one.name)}</title></polyline>'
                parts.append(line)
        for x, y, n, across, down in known if len(known) <= 30 else []:
            told = escape(f"{one.name}: {_number(x)}, {_number(y)}" + (f" ({n:,} rows)" if one.counts else ""))
            radius = 1.5 + 6 * math.sqrt(n / max(counts)) if one.counts else 2.5
            place = f'cx="{across:.1f}" cy="{down:.1f}" r="{radius:.3g}"'
            parts.append(f'<circle class="dot {kind}" {place}><title>{told}</title></circle>')
    return Drawing("".join(parts), legend=_legend([s.name for s in series]) if len(series) > 1 else ())


def named_points(points: Sequence[Point], x_label: str, y_label: str) -> Drawing:
    """Points with their names beside them, as far as there is room; what has none is told where the mouse is."""
    known = [point for point in points if math.isfinite(point.x) and math.isfinite(point.y)]
    if not known:
        return Drawing()
    xs, ys = _Axis([point.x for point in known]), _Axis([point.y for point in known])
    taken = [(x - 4, y - 4, x + 4, y + 4) for x, y in ((_x(xs, point.x), _y(ys, point.y)) for point in known)]
    leaders, dots, names = [], [], []
    shown = zip(known, _fitted([point.name for point in known], 185), strict=True)
    for point, name in sorted(shown, key=lambda pair: not pair[0].strong):
        x, y = _x(xs, point.x), _y(ys, point.y)
        told = escape(f"{point.name}: {_number(point.x)}, {_number(point.y)}")
        kind = "c0" if point.strong else "c7"
        dots.append(f'<circle class="dot {kind}" cx="{x:.1f}" cy="{y:.1f}" r="4"><title>{told}</title></circle>')
        free = (place for place in _places(x, y, name) if not any(_meet(place.box, other) for other in taken))
        place = next(free, None)
        if place is None:
            continue
        taken.append(place.box)
        left, top, right, bottom = place.box
        leaders.append(_line("grid", x, min(max(x, left), right), y, min(max(y, top), bottom)))
        names.append(_text("name" if point.strong else "tick", place.x, place.y, name, place.anchor))
    return Drawing("".join([_grid(xs, ys, x_label, y_label), *leaders, *dots, *names]))


def bars(values: Sequence[Bar], x_label: str) -> Drawing:
    """Horizontal bars from 0, with whiskers."""
    if not values:
        return Drawing()
    reach = [v.value + side * (v.error or 0.0) for v in values for side in (-1, 1)]
    axis = _Axis([0.0, *reach])
    row, left = 26, 175
    wide, bottom = WIDTH - left - _RIGHT, _TOP + row * len(values)

    def at(value: float) -> float:
        return left + wide * axis.share(value)

    parts = []
    for tick in axis.ticks:
        parts += [
            _line("grid", at(tick), at(tick), _TOP, bottom),
            _text("tick", at(tick), bottom + 16, axis.label(tick)),
        ]
    names = _fitted([bar.name for bar in values], left - 10)
    for i, (bar, name) in enumerate(zip(values, names, strict=True)):
        middle = _TOP + row * (i + 0.5)
        start, end = sorted((at(0.0), at(bar.value)))
        told = f"{bar.name}: {with_deviation(bar.value, bar.error, 2, '+')}"
        size = f'x="{start:.1f}" y="{middle - 8:.1f}" width="{max(end - start, 0.5):.1f}" height="16"'
        kind = "up" if bar.value >= 0 else "down"
        parts.append(f'<rect class="bar {kind}" {size}><title>{escape(told)}</title></rect>')
        if bar.error is not None:
            parts.append(_line("whisker", at(bar.value - bar.error), at(bar.value + bar.error), middle, middle))
        parts.append(_text("name", left - 8, middle + 4, name, "end"))
    parts += [_line("axis", at(0.0), at(0.0), _TOP, bottom), _text("label", left + wide / 2, bottom + 34, x_label)]
    return Drawing("".join(parts), bottom + _BOTTOM)


def scatter(points: Series, line: Series, x_label: str, y_label: str) -> Drawing:
    """Points, and a line to hold them against."""
    known = [(x, y) for x, y in points.points if y is not None and math.isfinite(y) and math.isfinite(x)]
    if not known:
        return Drawing()
    ends = [(x, y) for x, y in line.points if y is not None]
    xs, ys = _Axis([x for x, _ in [*known, *ends]]), _Axis([y for _, y in [*known, *ends]])
    path = " ".join(f"{_x(xs, x):.1f},{_y(ys, y):.1f}" for x, y in ends)
    parts = [_grid(xs, ys, x_label, y_label)]
    parts += [f'<circle class="dot c0 many" cx="{_x(xs, x):.1f}" cy="{_y(ys, y):.1f}" r="2.5"/>' for x, y in known]
    parts.append(f'<polyline class="line c1" points="{path}"><title>{escape(line.name)}</title></polyline>')
    return Drawing("".join(parts), legend=_legend([points.name, line.name]))


def matrix(
    rows: Sequence[str],
    columns: Sequence[str],
    cells: Sequence[Sequence[float | None]],
    *,
    by_row: bool = False,
    full: float | None = None,
) -> Drawing:
    """Numbers as cells, the stronger the colour the larger the number; negative ones in another colour.

    Args:
        rows: Names of the rows.
        columns: Names of the columns.
        cells: The numbers; one that is None or not finite is left empty.
        by_row: Whether a colour is full at the sum of its row (shares of a class).
        full: Else the number at which it is; None: the largest of all.
    """
    if not rows or not columns:
        return Drawing()
    known = [[value for value in row if value is not None and math.isfinite(value)] for row in cells]
    largest = full or max((abs(value) for row in known for value in row), default=0.0) or 1.0
    digits = min(max(2, 1 - math.floor(math.log10(largest))), 4)  # two of the largest, at most four
    long = max(map(len, columns)) > 3
    left, right = 110, 50 if long else _RIGHT
    wide = min((WIDTH - left - right) / len(columns), 56.0)
    high = min(wide, 26.0)
    slant, top = (45, 70) if wide > 14 else (80, 86)
    top = top if long else 28
    each = math.ceil(11 / wide)  # one name for each cell, or for every second, third ... of small ones
    above, beside = _fitted(columns, 76), _fitted(rows, left - 10)
    parts = []
    for j, name in list(enumerate(above))[::each]:
        place = f"translate({left + wide * (j + 0.5):.1f} {top - 8})"
        turned = f' rotate(-{slant})" text-anchor="start"' if long else '" text-anchor="middle"'
        parts.append(f'<text class="name" transform="{place}{turned}>{escape(name)}</text>')
    for i, (name, row) in enumerate(zip(rows, cells, strict=True)):
        down, most = top + high * i, (sum(map(abs, known[i])) or 1.0) if by_row else largest
        if i % each == 0:
            parts.append(_text("name", left - 8, down + high / 2 + 4, beside[i], "end"))
        for j, value in enumerate(row):
            if value is None or not math.isfinite(value):
                continue
            share = min(abs(value) / most, 1.0)
            size = f'x="{left + wide * j:.1f}" y="{down:.1f}" width="{wide - 1:.1f}" height="{high - 1:.1f}"'
            shade = f'class="cell {"up" if value >= 0 else "down"}" fill-opacity="{0.06 + 0.8 * share:.3f}"'
            told = escape(f"{name}, {columns[j]}: {_number(value)}")
            parts.append(f"<rect {size} {shade}><title>{told}</title></rect>")
            if wide >= 28 and high >= 16:
                rounded = value if isinstance(value, int) else f"{round(value, digits) + 0.0:.{digits}f}"  # never -0.00
                kind = "on" if share > 0.8 else "name"  # readable on a strong colour too, in light and dark
                parts.append(_text(kind, left + wide * (j + 0.5), down + high / 2 + 4, str(rounded)))
    return Drawing("".join(parts), math.ceil(top + high * len(rows) + 10))


class _Axis:
    """Bounds and round ticks that hold all values."""

    def __init__(self, values: Sequence[float], *, log: bool = False, exact: bool = False) -> None:
        self._log = log
        whole = exact and all(value == int(value) for value in values)  # epochs: there is no epoch 1.5
        low, high = min(values), max(values)
        self._step = 0.0  # none
        if log:
            self.low, self.high = math.log10(low), math.log10(high)
            self.ticks = [low, high] if high > low else [low]
            for value in sorted(set(values)):  # those that do not lie on one another
                if all(abs(math.log10(value / tick)) >= 0.12 * (self.high - self.low) for tick in self.ticks):
                    self.ticks.append(value)
        else:
            step = _step(high - low if high > low else max(abs(high), 1.0) * 0.1)
            if whole:
                step = max(math.ceil(step), 1)
            self._step = step
            self.low = low if exact else math.floor(low / step) * step
            self.high = high if exact else math.ceil(high / step) * step
            first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
            self.ticks = [round(i * step, 1 - _magnitude(step)) for i in range(first, last + 1)]
        if self.high == self.low:
            self.low, self.high = self.low - 0.5, self.high + 0.5

    def label(self, tick: float) -> str:
        """A tick as it is written: no other one reads the same."""
        return _number(tick, self._step)

    def share(self, value: float) -> float:
        """Where the value lies between the bounds, 0 to 1."""
        return ((math.log10(value) if self._log else value) - self.low) / (self.high - self.low)


def _step(span: float) -> float:
    rough = span / 5
    power = 10.0 ** _magnitude(rough)
    return next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * 0.999)


def _x(axis: _Axis, value: float) -> float:
    return _LEFT + (WIDTH - _LEFT - _RIGHT) * axis.share(value)


def _y(axis: _Axis, value: float) -> float:
    return _TOP + (HEIGHT - _TOP - _BOTTOM) * (1 - axis.share(value))


def _grid(xs: _Axis, ys: _Axis, x_label: str, y_label: str) -> str:
    right, bottom = WIDTH - _RIGHT, HEIGHT - _BOTTOM
    parts = [_line("axis", _LEFT, right, bottom, bottom)]
    for tick in ys.ticks:
        y = _y(ys, tick)
        parts += [_line("grid", _LEFT, right, y, y), _text("tick", _LEFT - 6, y + 4, ys.label(tick), "end")]
    parts += [_text("tick", _x(xs, tick), bottom + 16, xs.label(tick)) for tick in xs.ticks]
    (shown,) = _fitted([x_label], right - _LEFT)  # the name of a class may be in it
    parts.append(_text("label", (_LEFT + right) / 2, HEIGHT - 6, shown))
    turned = f'transform="translate(12 {(_TOP + bottom) / 2:.0f}) rotate(-90)"'
    parts.append(f'<text class="label" {turned} text-anchor="middle">{escape(y_label)}</text>')
    return "".join(parts)


_Box = tuple[float, float, float, float]  # left, top, right, bottom


class _Place(NamedTuple):
    """Where a text may stand that names a point."""

    x: float
    y: float
    anchor: str
    box: _Box


def _places(x: float, y: float, text: str) -> Iterator[_Place]:
    """The places for the name of a point that lie within the plot, the nearest first."""
    wide, high = _wide(text), 13.0
    for further in (0.0, 14.0, 28.0, 42.0):
        for across, down in ((1, 0), (-1, 0), (0, -1), (0, 1), (1, -1), (1, 1), (-1, -1), (-1, 1)):
            reach = (7 + further) / math.hypot(across, down)
            at = x + across * reach
            left = at - wide * (1 - across) / 2
            base = y + 4 + down * (reach + 4)
            box = left, base - high + 3, left + wide, base + 3
            if left >= _LEFT and box[1] >= 0 and box[2] <= WIDTH and box[3] <= HEIGHT - _BOTTOM:
                yield _Place(at, base, {1: "start", 0: "middle", -1: "end"}[across], box)


def _meet(one: _Box, other: _Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _line(kind: str, x1: float, x2: float, y1: float, y2: float) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" x2="{x2:.1f}" y1="{y1:.1f}" y2="{y2:.1f}"/>'


def _text(kind: str, x: float, y: float, text: str, anchor: str = "middle") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _legend(names: Sequence[str]) -> list[tuple[str, str]]:
    return [(name, _class(i)) for i, name in enumerate(names)]


def _class(i: int) -> str:
    return f"c{i % _COLOURS}" + _STYLES[i // _COLOURS % len(_STYLES)]


def _fitted(names: Sequence[str], room: float) -> list[str]:
    """Names within so many pixels; longer ones are cut where different names stay different, if there is such a place.

    Example:
        >>> _fitted(["blood pressure 1 (rest)", "blood pressure 12 (rest)", "age"], 100.0)
        ['blood…1 (rest)', 'blood…2 (rest)', 'age']
    """
    best: list[str] = []
    for tail in range(2, max(3, int(room / _LETTER))):  # of their ends, in which parts of one task differ
        cut = [_cut(name, room, tail) for name in names]
        if best and max(map(_wide, cut)) > room:
            break
        if len({*cut}) > len({*best}):
            best = cut
        if len({*cut}) == len({*names}):
            break
    return best


def _cut(name: str, room: float, tail: int) -> str:
    if _wide(name) <= room:
        return name
    end = f"…{name[-tail:]}"
    most = min(len(name) - tail, int(room / _LETTER))
    return next((name[:n] + end for n in range(most, 0, -1) if _wide(name[:n] + end) <= room), end)


def _wide(text: str) -> float:
    """About how many pixels a text takes: fonts differ."""
    return sum(
        11.0 if east_asian_width(c) in "WF" or c == "…" else 9.2 if c in _WIDE else 7.6 if c.isupper() else _LETTER
        for c in text
    )


def _number(value: float, step: float = 0.0) -> str:
    """A number to four digits, or to as many as tell it from those a step away."""
    digits = _magnitude(value) - _magnitude(step) + 2 if value and step else 0
    if value != 0 and (abs(value) >= 1e12 or abs(value) < 1e-3):
        return f"{value:.{max(digits, 2)}g}"
    for power, letter in ((1e9, "G"), (1e6, "M")):
        if abs(value) >= power:
            return f"{value / power:.{max(digits, 4)}g}{letter}"
    whole = abs(value) >= 1000 and digits <= _magnitude(value) + 1
    return f"{value:,.0f}" if whole else f"{value:,.{max(digits, 4)}g}"


def _magnitude(value: float) -> int:
    """The place of the first digit: 2 of hundreds, -1 of tenths."""
    return math.floor(math.log10(abs(value)))
