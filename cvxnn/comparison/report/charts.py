"""Charts as inline SVG: numbers in, text out, nothing to install; colours are the page's."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

WIDTH, HEIGHT = 380, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 14, 14, 44
_COLOURS = 8  # --series-1 ... of the page


class Point(NamedTuple):
    """A measured value with its standard error, which may be 0."""

    x: float
    y: float
    error: float = 0.0


def line_chart(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]], x_label: str, y_label: str
) -> str:
    """Curves over a linear axis; values that are not finite are left out.

    Parameters
    ----------
    series : mapping of str to (xs, ys)
        Names and coordinates of the curves.
    x_label, y_label : str
        What the axes show, with units.

    Returns
    -------
    str
        One ``svg`` element.

    Raises
    ------
    ValueError
        If no curve has a finite point, or a curve has not as many xs as ys.
    """
    curves = {
        name: [(x, y) for x, y in zip(xs, ys, strict=True) if math.isfinite(x) and math.isfinite(y)]
        for name, (xs, ys) in series.items()
    }
    points = [point for curve in curves.values() for point in curve]
    frame = _Frame(points, x_label, y_label, log=False)
    marks = []
    for i, (name, curve) in enumerate(curves.items()):
        if not curve:
            continue
        path = " ".join(f"{frame.x(x):.1f},{frame.y(y):.1f}" for x, y in curve)
        title = f"<title>{escape(name)}</title>"
        if len(curve) == 1:
            x, y = path.split(",")
            marks.append(f'<circle class="s{_colour(i)}" cx="{x}" cy="{y}" r="3">{title}')
            marks.append("</circle>")
        else:
            marks.append(f'<polyline class="s{_colour(i)}" points="{path}">{title}</polyline>')
    return frame.draw("".join(marks), list(curves))


def scatter_chart(points: Mapping[str, Point], x_label: str, y_label: str) -> str:
    """Named points with error bars (one standard error) over a logarithmic axis.

    Parameters
    ----------
    points : mapping of str to Point
        Each x above 0; others are left out, as is what is not finite.
    x_label, y_label : str
        What the axes show, with units.

    Returns
    -------
    str
        One ``svg`` element.

    Raises
    ------
    ValueError
        If no point is left.
    """
    kept = {n: p for n, p in points.items() if all(map(math.isfinite, p)) and p.x > 0}
    ends = [(p.x, p.y + sign * p.error) for p in kept.values() for sign in (-1, 1)]
    frame = _Frame(ends, x_label, y_label, log=True)
    marks = []
    for i, (name, point) in enumerate(kept.items()):
        x, y, colour = frame.x(point.x), frame.y(point.y), _colour(i)
        low, high = frame.y(point.y - point.error), frame.y(point.y + point.error)
        marks.append(
            f'<line class="s{colour}" x1="{x:.1f}" x2="{x:.1f}" y1="{low:.1f}" y2="{high:.1f}">'
            f'</line><circle class="s{colour}" cx="{x:.1f}" cy="{y:.1f}" r="4">'
            f"<title>{escape(name)}</title></circle>"
        )
    return frame.draw("".join(marks), list(kept))


class _Frame:
    """Axes that hold all points, and the way from values to places."""

    def __init__(
        self, points: Sequence[tuple[float, float]], x_label: str, y_label: str, *, log: bool
    ) -> None:
        if not points:
            raise ValueError("nothing to draw: expected at least one point of finite numbers")
        self.labels, self.log = (x_label, y_label), log
        xs, ys = zip(*points, strict=True)
        self.x_ticks = _decades(xs) if log else ticks(min(xs), max(xs))
        self.y_ticks = ticks(min(ys), max(ys))

    def x(self, value: float) -> float:
        """Place of an x, in units of the picture."""
        low, high = self.x_ticks[0], self.x_ticks[-1]
        if self.log:
            value, low, high = math.log10(value), math.log10(low), math.log10(high)
        return _LEFT + (value - low) / (high - low) * (WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        """Place of a y, from the top."""
        low, high = self.y_ticks[0], self.y_ticks[-1]
        return HEIGHT - _BOTTOM - (value - low) / (high - low) * (HEIGHT - _TOP - _BOTTOM)

    def draw(self, marks: str, names: Sequence[str]) -> str:
        """The whole picture: grid, numbers, labels, marks, and a legend below."""
        left, right, top, bottom = _LEFT, WIDTH - _RIGHT, _TOP, HEIGHT - _BOTTOM
        parts = []
        for tick in self.y_ticks:
            y = self.y(tick)
            parts.append(
                f'<line class="grid" x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"></line>'
                f'<text x="{left - 7}" y="{y + 3.5:.1f}" text-anchor="end">{number(tick)}</text>'
            )
        for tick in _thinned(self.x_ticks):
            x = self.x(tick)
            parts.append(
                f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{bottom}" y2="{bottom + 4}">'
                f'</line><text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">'
                f"{_power(tick) if self.log else number(tick)}</text>"
            )
        middle = (top + bottom) / 2
        parts += [
            f'<line class="axis" x1="{left}" x2="{right}" y1="{bottom}" y2="{bottom}"></line>',
            f'<text class="label" x="{(left + right) / 2}" y="{bottom + 34}" text-anchor="middle">'
            f"{escape(self.labels[0])}</text>",
            f'<text class="label" transform="translate(13 {middle}) rotate(-90)" '
            f'text-anchor="middle">{escape(self.labels[1])}</text>',
            marks,
        ]
        columns = 3
        height = HEIGHT + (18 * math.ceil(len(names) / columns) if len(names) > 1 else 0)
        for i, name in enumerate(names if len(names) > 1 else ()):
            x = left + (i % columns) * (right - left) / columns
            y = HEIGHT + 6 + 18 * (i // columns)
            parts.append(
                f'<line class="s{_colour(i)}" x1="{x:.1f}" x2="{x + 14:.1f}" y1="{y}" y2="{y}">'
                f'</line><text x="{x + 19:.1f}" y="{y + 3.5}">{escape(name)}</text>'
            )
        described = escape(f"{self.labels[1]} over {self.labels[0]}: {', '.join(names)}")
        return (
            f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{described}">'
            f"{''.join(parts)}</svg>"
        )


def ticks(low: float, high: float, at_most: int = 6) -> list[float]:
    """Round numbers, evenly spaced, the first at most `low` and the last at least `high`."""
    if low == high:
        margin = abs(low) / 2 or 1.0
        low, high = low - margin, high + margin
    rough = (high - low) / (at_most - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    for factor in (1, 2, 2.5, 5, 10, 20):
        step = factor * power
        first, last = math.floor(low / step), math.ceil(high / step)
        if last - first < at_most:
            break
    return [i * step for i in range(first, last + 1)]


def number(value: float) -> str:
    """A number of an axis: three digits, no needless zeros, a real minus sign."""
    return f"{value + 0:.3g}".replace("e+0", "e").replace("e-0", "e-").replace("-", "−")


def _decades(values: Sequence[float]) -> list[float]:
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return [10.0**k for k in range(low, max(high, low + 1) + 1)]


def _thinned(values: list[float]) -> list[float]:
    return values[:: math.ceil(len(values) / 7)]


def _power(value: float) -> str:
    exponent = round(math.log10(value))
    return f'10<tspan dy="-4" font-size="8">{str(exponent).replace("-", "−")}</tspan>'


def _colour(index: int) -> int:
    return index % _COLOURS + 1
