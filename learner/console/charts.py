"""Charts as SVG, drawn on the server with svg.py: readable without hover, colours from the page's stylesheet.

Libraries that draw whole charts bring styles inside the picture, which the pages' content security policy refuses, and
know neither dark pages nor intervals. A picture names what it shows in words; its figures stand beside it as a table.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final

import svg
from markupsafe import Markup, escape

from learner.console.format import share, signed
from store.statistics import ArmSums, totals_of

LEFT, RIGHT, TOP, BOTTOM = 46, 112, 14, 26
SMOOTH_DAYS: Final = 7  # days before and with each day that its line averages: single days are few responses
Z_95: Final = 1.96
LABEL_PX: Final = 14.0  # height of a line's name


@dataclass(frozen=True, slots=True)
class Size:
    """A drawing's size; the stylesheet shows the one that fits the screen, so that its texts are never scaled much."""

    name: str
    width: int
    height: int
    n_days: int  # labels of the time axis, beside the first


SIZES: Final = (Size("wide", 1090, 260, 5), Size("narrow", 340, 220, 2))


@dataclass(frozen=True, slots=True)
class Point:
    """A value on a day, with its 95 % interval where there is one."""

    day: date
    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Line:
    """What is drawn as one line; *name* is also its class in the stylesheet."""

    name: str
    points: Sequence[Point]


@dataclass(frozen=True, slots=True)
class Chart:
    """What a picture shows: of which quantity, between which ends at most, and how its values read."""

    title: str
    lines: Sequence[Line]
    least: float
    most: float
    form: Callable[[float], str]
    shows_whole: bool = False  # all of the intervals, and zero


def smoothed(rows: Sequence[ArmSums], days: int = SMOOTH_DAYS) -> list[Point]:
    """Return for each day the mean satisfaction of one arm in the *days* days up to it, each response counting once."""
    by_day = {date.fromisoformat(row.day): row for row in rows if row.n_responses}
    points = []
    for day in sorted(by_day):
        window = [by_day[day - timedelta(days=back)] for back in range(days) if day - timedelta(days=back) in by_day]
        total = next(one for one in totals_of(window).values() if one.n_responses)
        assert total.satisfaction is not None
        reach = None if total.stderr is None else Z_95 * total.stderr
        low, high = (None, None) if reach is None else (total.satisfaction - reach, total.satisfaction + reach)
        points.append(Point(day, total.satisfaction, low, high))
    return points


def satisfaction_chart(rows: Sequence[ArmSums]) -> Markup:
    """Return the picture of both arms over time, empty when there is nothing to draw."""
    lines = [
        Line(arm, smoothed([row for row in rows if bool(row.is_holdout) is is_holdout]))
        for arm, is_holdout in (("holdout", True), ("treated", False))
    ]
    title = f"Satisfaction by day, mean of {SMOOTH_DAYS} days, with 95 % intervals"
    return drawn(Chart(title, lines, -1.05, 1.05, signed))


def share_chart(title: str, lines: Sequence[Line]) -> Markup:
    """Return the picture of shares over time, empty when there is nothing to draw."""
    return drawn(Chart(title, lines, 0.0, 1.02, share))


def lift_chart(points: Sequence[Point]) -> Markup:
    """Return the picture of a lift over time with its interval, empty for a single day."""
    if len({point.day for point in points}) < 2:
        return Markup("")
    return drawn(
        Chart("Lift over time, with 95 % intervals", [Line("lift", points)], -1.05, 1.05, signed, shows_whole=True)
    )


def drawn(chart: Chart) -> Markup:
    """Return the picture in each size, empty when no line has a point."""
    lines = [line for line in chart.lines if line.points]
    return Markup("").join(_Drawing(chart, lines, size).picture() for size in SIZES) if lines else Markup("")


class _Drawing:
    """One picture in one size: where values go on it, and its parts."""

    def __init__(self, chart: Chart, lines: Sequence[Line], size: Size) -> None:
        self.chart, self.lines, self.size = chart, lines, size
        days = [point.day for line in lines for point in line.points]
        self.first, self.last = min(days), max(days)
        self.low, self.high = self._range()

    def picture(self) -> Markup:
        ends = ", ".join(f"{line.name} {self.chart.form(line.points[-1].value)}" for line in self.lines)
        return _markup(
            svg.SVG(
                class_=["chart", self.size.name],
                viewBox=svg.ViewBoxSpec(0, 0, self.size.width, self.size.height),
                extra={"role": "img", "aria-label": str(escape(f"{self.chart.title}; at the end: {ends}"))},
                elements=[*self._grid(), *self._days(), *self._bands(), *self._lines()],
            )
        )

    def x(self, day: date) -> float:
        span_days = max((self.last - self.first).days, 1)
        return _pixel(LEFT + (self.size.width - LEFT - RIGHT) * (day - self.first).days / span_days)

    def y(self, value: float) -> float:
        inside = min(max(value, self.low), self.high)
        return _pixel(TOP + (self.size.height - TOP - BOTTOM) * (self.high - inside) / (self.high - self.low))

    def _range(self) -> tuple[float, float]:
        """Return what the axis shows: all values, and intervals unless they are many times as far apart."""
        points = [point for line in self.lines for point in line.points]
        values = [point.value for point in points]
        spread = max(max(values) - min(values), 0.05)
        ends = [end for point in points for end in (point.low, point.high) if end is not None]
        if self.chart.shows_whole:
            values = [*values, *ends, 0.0]
        low = max(min([*values, *ends]), min(values) - 2 * spread)
        high = min(max([*values, *ends]), max(values) + 2 * spread)
        pad = max((high - low) * 0.08, 0.02)
        return max(low - pad, self.chart.least), min(high + pad, self.chart.most)

    def _grid(self) -> list[svg.Element]:
        step = next(step for step in (0.02, 0.05, 0.1, 0.2, 0.5, 1.0) if (self.high - self.low) / step <= 6)
        first = math.ceil(self.low / step)
        ticks = [number * step for number in range(first, first + 8) if number * step <= self.high]
        parts: list[svg.Element] = []
        for tick in ticks:
            y, name = self.y(tick), "grid zero" if abs(tick) < step / 2 else "grid"
            parts.append(svg.Line(class_=[name], x1=LEFT, x2=self.size.width - RIGHT, y1=y, y2=y))
            parts.append(_text("tick", LEFT - 8, y + 4, self.chart.form(tick), "end"))
        return parts

    def _days(self) -> list[svg.Element]:
        n_days = (self.last - self.first).days
        n_labels = min(n_days, self.size.n_days) or 1
        days = sorted(
            {self.first + timedelta(days=round(n_days * number / n_labels)) for number in range(n_labels + 1)}
        )
        return [_text("tick", self.x(day), self.size.height - 6, f"{day:%d %b}", "middle") for day in days]

    def _bands(self) -> list[svg.Element]:
        bands: list[svg.Element] = []
        for line in self.lines:
            known = [(self.x(p.day), p.low, p.high) for p in line.points if p.low is not None and p.high is not None]
            edge = [(x, self.y(high)) for x, _, high in known] + [(x, self.y(low)) for x, low, _ in reversed(known)]
            if len(known) > 1:
                bands.append(svg.Polygon(class_=["band", line.name], points=[svg.Point(x, y) for x, y in edge]))
        return bands

    def _lines(self) -> list[svg.Element]:
        label_ys = apart({line.name: self.y(line.points[-1].value) for line in self.lines}, LABEL_PX)
        parts: list[svg.Element] = []
        for line in self.lines:
            end = line.points[-1]
            points = [svg.Point(self.x(point.day), self.y(point.value)) for point in line.points]
            parts.append(svg.Polyline(class_=["line", line.name], points=points))
            parts.append(svg.Circle(class_=["dot", line.name], cx=self.x(end.day), cy=self.y(end.value), r=3.5))
            words = f"{line.name} {self.chart.form(end.value)}"
            parts.append(_text(f"label {line.name}", self.x(end.day) + 9, label_ys[line.name] + 4, words, "start"))
        return parts


def apart(ys: Mapping[str, float], gap: float) -> dict[str, float]:
    """Return *ys* moved so far apart that labels of this height do not cover one another.

    >>> apart({"a": 10.0, "b": 12.0, "c": 80.0}, 14.0)
    {'a': 10.0, 'b': 24.0, 'c': 80.0}
    """
    placed: dict[str, float] = {}
    for name, value in sorted(ys.items(), key=lambda item: item[1]):
        floor = max(placed.values(), default=-gap) + gap
        placed[name] = max(value, floor)
    return placed


def interval_chart(lift: float | None, low: float | None, high: float | None, *, reach: float = 0.0) -> Markup:
    """Return a lift with its interval on a scale around zero, empty before there is evidence.

    *reach* is what the scale shows at least on both sides: one scale for what is to be compared.
    """
    if lift is None or low is None or high is None:
        return Markup("")
    reach = max(abs(low), abs(high), reach, 0.05) * 1.15
    width, middle = 240, 120

    def x(value: float) -> float:
        return _pixel(middle + value / reach * middle)

    tone = "good" if low > 0 else "bad" if high < 0 else "unsure"
    return _markup(
        svg.SVG(
            class_=["interval"],
            viewBox=svg.ViewBoxSpec(0, 0, width, 26),
            extra={"role": "img", "aria-label": f"lift {lift:+.3f}, 95 % interval {low:+.3f} to {high:+.3f}"},
            elements=[
                svg.Line(class_=["zero"], x1=middle, x2=middle, y1=2, y2=24),
                svg.Line(class_=["bar", tone], x1=x(low), x2=x(high), y1=13, y2=13),
                svg.Circle(class_=["mark", tone], cx=x(lift), cy=13, r=5),
            ],
        )
    )


def _text(name: str, x: float, y: float, words: str, anchor: str) -> svg.Element:
    # svg.py writes texts as they are.
    return svg.Text(class_=[name], x=x, y=_pixel(y), text=str(escape(words)), extra={"text-anchor": anchor})


def _pixel(value: float) -> float:
    return round(value, 1)


def _markup(picture: svg.SVG) -> Markup:
    return Markup(picture.as_str())  # noqa: S704 - made of numbers, days and texts that were escaped
