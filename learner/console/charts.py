"""Charts as SVG, made on the server: readable without hover, colours from the page's stylesheet."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from markupsafe import Markup, escape

from learner.console.format import signed
from store.statistics import ArmDay

LEFT, RIGHT, TOP, BOTTOM = 44, 104, 14, 26
SMOOTH_DAYS = 7  # days before and with each day that its line averages: single days of the holdout are few responses


@dataclass(frozen=True, slots=True)
class Size:
    """A drawing's size; the stylesheet shows the one that fits the screen, so that its texts are never scaled much."""

    name: str
    width: int
    height: int
    n_days: int  # labels of the time axis, beside the first


SIZES = (Size("wide", 1090, 260, 5), Size("narrow", 360, 220, 2))


@dataclass(frozen=True, slots=True)
class Point:
    day: date
    value: float


def smoothed(rows: Sequence[ArmDay], days: int = SMOOTH_DAYS) -> list[Point]:
    """Return for each day the mean satisfaction of the *days* days up to it, each response counting once."""
    by_day = {date.fromisoformat(row.day): row for row in rows}
    points = []
    for day in sorted(by_day):
        window = [by_day[day - timedelta(days=back)] for back in range(days) if day - timedelta(days=back) in by_day]
        total = sum(row.n_responses for row in window)
        points.append(Point(day, sum(row.satisfaction * row.n_responses for row in window) / total))
    return points


def satisfaction_chart(by_day: Sequence[ArmDay]) -> Markup:
    """Return the chart of both arms over time, in each size, empty when there is nothing to draw."""
    arms = {arm: smoothed([row for row in by_day if row.arm == arm]) for arm in ("holdout", "treated")}
    drawn = {arm: line for arm, line in arms.items() if line}
    return Markup("").join(_drawing(drawn, size) for size in SIZES) if drawn else Markup("")


def _drawing(arms: Mapping[str, Sequence[Point]], size: Size) -> Markup:
    points = [point for line in arms.values() for point in line]
    first, last = min(point.day for point in points), max(point.day for point in points)
    low, high = _range([point.value for point in points])
    span_days = max((last - first).days, 1)

    def x(day: date) -> float:
        return LEFT + (size.width - LEFT - RIGHT) * (day - first).days / span_days

    def y(value: float) -> float:
        return TOP + (size.height - TOP - BOTTOM) * (high - value) / (high - low)

    parts = [_grid(low, high, y, size), _days(first, last, x, size)]
    label_ys = _apart({arm: y(line[-1].value) for arm, line in arms.items()}, 14.0)
    for arm, line in arms.items():
        path = " ".join(f"{x(point.day):.1f},{y(point.value):.1f}" for point in line)
        end = line[-1]
        parts.append(f'<polyline class="line {arm}" points="{path}"/>')
        parts.append(f'<circle class="dot {arm}" cx="{x(end.day):.1f}" cy="{y(end.value):.1f}" r="3.5"/>')
        parts.append(
            f'<text class="label {arm}" x="{x(end.day) + 9:.1f}" y="{label_ys[arm] + 4:.1f}">{arm} '
            f"{signed(end.value)}</text>"
        )
    summary = ", ".join(f"{arm} {signed(line[-1].value)}" for arm, line in arms.items())
    return Markup(  # noqa: S704 - made of numbers, days and the names of the two arms
        f'<svg class="chart {size.name}" viewBox="0 0 {size.width} {size.height}" role="img" '
        f'aria-label="Satisfaction by day, mean of {SMOOTH_DAYS} days; at the end: {escape(summary)}">'
        f"{''.join(parts)}</svg>"
    )


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    pad = max((high - low) * 0.15, 0.05)
    return max(low - pad, -1.05), min(high + pad, 1.05)


def _grid(low: float, high: float, y: Callable[[float], float], size: Size) -> str:
    step = next(step for step in (0.02, 0.05, 0.1, 0.2, 0.5, 1.0) if (high - low) / step <= 6)
    first = int(low / step) - 1
    ticks = [number * step for number in range(first, first + 12) if low <= number * step <= high]
    return "".join(
        f'<line class="grid" x1="{LEFT}" x2="{size.width - RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>'
        f'<text class="tick" x="{LEFT - 8}" y="{y(tick) + 4:.1f}" text-anchor="end">{signed(tick)}</text>'
        for tick in ticks
    )


def _days(first: date, last: date, x: Callable[[date], float], size: Size) -> str:
    n_days = (last - first).days
    n_labels = min(n_days, size.n_days) or 1
    days = sorted({first + timedelta(days=round(n_days * number / n_labels)) for number in range(n_labels + 1)})
    return "".join(
        f'<text class="tick" x="{x(day):.1f}" y="{size.height - 6}" text-anchor="middle">{day.strftime("%d %b")}</text>'
        for day in days
    )


def _apart(ys: Mapping[str, float], gap: float) -> dict[str, float]:
    """Return *ys* moved so far apart that labels of this height do not cover one another."""
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
        return middle + value / reach * middle

    tone = "good" if low > 0 else "bad" if high < 0 else "unsure"
    return Markup(  # noqa: S704 - made of numbers
        f'<svg class="interval" viewBox="0 0 {width} 26" role="img" '
        f'aria-label="lift {lift:+.3f}, 95 % interval {low:+.3f} to {high:+.3f}">'
        f'<line class="zero" x1="{middle}" x2="{middle}" y1="2" y2="24"/>'
        f'<line class="bar {tone}" x1="{x(low):.1f}" x2="{x(high):.1f}" y1="13" y2="13"/>'
        f'<circle class="mark {tone}" cx="{x(lift):.1f}" cy="13" r="5"/></svg>'
    )
