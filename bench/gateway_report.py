"""The gateway's figures as a part of the page, and the bars that they are held against."""

import sqlite3
from collections.abc import Callable, Mapping, Sequence

from bench.bars import Bar, Part, at_least, at_most, table
from bench.installation import N_CONTEXTS, N_PATTERNS
from bench.machine import machine
from bench.measurement import Cell, Measurement, Target
from bench.rivals import RIVALS

Seen = Mapping[tuple[Cell, Target], Measurement]
N_CHUNKS = 50
COLUMNS = (
    "target",
    "requests/s",
    "p50 us",
    "p99 us",
    "added p50",
    "added p99",
    "added first byte",
    "CPU us",
    "of it serving",
    "x nginx",
    "MB",
    "failed",
)
TEXT = """{method}, targets taking turns, medians. Servers share one core; load driver and mock upstream (C,
`bench/*.c`) have the other. CPU is the kernel's count for all processes of the target until they are idle again, less
what they use while idle, so the moving of records into the database is in it; `of it serving` leaves that out. `added`
is the difference to `direct` in the same table, in microseconds; the first byte is the first of the reply's body.

`all on`: {n_patterns:,} patterns (20 match a request, two in each of 10 dimensions), {n_contexts:,} contexts, every
question and every conversation new, every response recorded; {injected}.
Idle, it uses {idle}. `learning off`: the tenant's switch; a pure relay. The other gateways relay to the same
upstream and record nothing: TensorZero from its wheel with observability off, Portkey with `NODE_ENV=production`,
LiteLLM's proxy with telemetry off and no database; all with one process, and their replies were checked. Portkey's
streams are left out: this build answers them with 500 under Node 20 (`TypeError: immutable`).

How many of 50 chunks that come at once reach a target in one read depends on how fast it is, and a slow one saves
system calls by it; 10 ms apart, as a model writes, every chunk costs everybody a read and a write.
{notes}
Machine: {machine}.
"""


def part(seen: Seen, targets: Sequence[Target], method: str) -> Part:
    """Return the part; *targets* begins with the one that nothing stands in front of."""
    installed = {target.name.rsplit(" ", 1)[0] for target in targets if target.is_rival}
    missing = [rival.name for rival in RIVALS if rival.name not in installed]
    if not any(target.name == "nginx" for target in targets):
        missing.insert(0, "nginx")
    notes = f"\nNot installed, so left out: {', '.join(missing)} (`make bench-rivals`).\n" if missing else ""
    text = TEXT.format(
        method=method,
        n_patterns=N_PATTERNS,
        n_contexts=N_CONTEXTS,
        injected=_injected(targets),
        idle=_idle(targets),
        notes=notes,
        machine=machine(),
    )
    return Part("gateway", "The gateway: CPU time and latency", text + _tables(seen, targets), bars(seen, targets))


def bars(seen: Seen, targets: Sequence[Target]) -> list[Bar]:
    """Return the bars on speed, each computed from *seen*."""
    figures = _Figures(seen, targets)
    off, on = "tutelage, learning off", "tutelage, all on"
    whole, chunks, paced = figures.closed("whole"), figures.closed("chunks"), figures.open("paced")
    opened = figures.open("whole")
    cpu: Callable[[Measurement], float] = lambda got: got.cpu_us  # noqa: E731
    speed: Callable[[Measurement], float] = lambda got: got.requests_per_s  # noqa: E731
    return [
        *(
            at_most(
                f"CPU a request, all on, to {name}'s",
                f"at most {limit:g}x",
                limit,
                figures.ratios(on, name, whole, cpu),
                form,
            )
            for name, limit, form in (
                ("TensorZero", 0.6, "{:.2f}"),
                ("Portkey", 0.1, "{:.3f}"),
                ("LiteLLM proxy", 0.01, "{:.4f}"),
                ("nginx", 10, "{:.1f}"),
            )
        ),
        at_most(
            "the goal beyond: all on, to nginx's", "at most 6x", 6, figures.ratios(on, "nginx", whole, cpu), "{:.1f}"
        ),
        at_most(
            "CPU a request, learning off, to nginx's",
            "at most 3x",
            3,
            figures.ratios(off, "nginx", whole, cpu),
            "{:.1f}",
        ),
        *(
            at_most(
                f"CPU a stream, {name}, to nginx's: {kind}",
                "at most 1.5x",
                1.5,
                figures.ratios(f"tutelage, {name}", "nginx", cells, cpu),
            )
            for name in ("learning off", "all on")
            for kind, cells in (("50 chunks at once", chunks), ("50 chunks 10 ms apart", paced))
        ),
        *(
            at_least(
                f"chunks/s, {name}, to nginx's",
                "at least 1x",
                1,
                figures.ratios(f"tutelage, {name}", "nginx", chunks, speed),
            )
            for name in ("learning off", "all on")
        ),
        at_most(
            "added p50 at 1 connection, all on",
            "below 0.3 ms",
            0.3,
            figures.added(on, whole[:1], "p50_us"),
            "{:.3f} ms",
        ),
        at_most(
            "added p50 at 100 requests/s, all on", "below 0.6 ms", 0.6, figures.added(on, opened, "p50_us"), "{:.3f} ms"
        ),
        at_most(
            "added p99 at 100 requests/s, all on", "below 1.0 ms", 1.0, figures.added(on, opened, "p99_us"), "{:.3f} ms"
        ),
        at_most(
            "added time to first token, all on: at 1 connection / chunks 10 ms apart, 50 streams/s",
            "below 0.3 ms",
            0.3,
            figures.added(on, (*chunks[:1], *paced), "first_byte_us"),
            "{:.3f} ms",
        ),
    ]


class _Figures:
    """Looks figures up by what a bar says of them."""

    def __init__(self, seen: Seen, targets: Sequence[Target]) -> None:
        self._seen = seen
        self._targets = targets
        self._cells = tuple(dict.fromkeys(cell for cell, _ in seen))

    def closed(self, reply: str) -> tuple[Cell, ...]:
        """Return the closed loops with such replies, by number of connections."""
        return tuple(cell for cell in self._cells if cell.reply == reply and not cell.rate)

    def open(self, reply: str) -> tuple[Cell, ...]:
        """Return the open loops with such replies."""
        return tuple(cell for cell in self._cells if cell.reply == reply and cell.rate)

    def ratios(
        self, name: str, other: str, cells: Sequence[Cell], figure: Callable[[Measurement], float]
    ) -> list[float]:
        """Return in each of *cells* a figure of *name* as a multiple of the *other*'s, where both are."""
        pairs = [(self._got(name, cell), self._got(other, cell)) for cell in cells]
        return [figure(mine) / figure(theirs) for mine, theirs in pairs if mine and theirs]

    def added(self, name: str, cells: Sequence[Cell], figure: str) -> list[float]:
        """Return in each of *cells* the milliseconds that *name* adds to the direct way."""
        return [
            (getattr(mine, figure) - getattr(self._seen[cell, self._targets[0]], figure)) / 1e3
            for cell in cells
            if (mine := self._got(name, cell))
        ]

    def _got(self, name: str, cell: Cell) -> Measurement | None:
        found = (self._seen.get((cell, target)) for target in self._targets if target.name.startswith(name))
        return next(found, None)


def _tables(seen: Seen, targets: Sequence[Target]) -> str:
    nginx = next((target for target in targets if target.name == "nginx"), None)
    pages = []
    for cell in dict.fromkeys(cell for cell, _ in seen):
        nginx_us = seen[cell, nginx].cpu_us if nginx else 0.0
        is_stream = cell.reply != "whole"
        rows = [
            _row(target, seen[cell, target], seen[cell, targets[0]], nginx_us, is_stream=is_stream)
            for target in targets
            if (cell, target) in seen
        ]
        columns = (*COLUMNS[:2], "chunks/s", *COLUMNS[2:]) if is_stream else COLUMNS
        pages.append(f"\n### {cell.name}\n\n{table(columns, rows)}")
    return "".join(pages)


def _row(target: Target, got: Measurement, direct: Measurement, nginx_us: float, *, is_stream: bool) -> list[str]:
    speed = [f"{got.requests_per_s:,.0f}", *([f"{got.requests_per_s * N_CHUNKS:,.0f}"] if is_stream else [])]
    figures = [target.name, *speed, f"{got.p50_us:,.0f}", f"{got.p99_us:,.0f}"]
    if target.pid is None:
        return [*figures, "", "", "", "", "", "", "", str(got.failed)]
    differences = (
        got.p50_us - direct.p50_us,
        got.p99_us - direct.p99_us,
        got.first_byte_us - direct.first_byte_us,
    )
    # Without a reply within the time there is no latency to speak of.
    added = [f"{difference:,.0f}" if got.requests_per_s else "" for difference in differences]
    return [
        *figures,
        *added,
        f"{got.cpu_us:,.1f}",
        f"{got.serving_cpu_us:,.1f}",
        f"{got.cpu_us / nginx_us:.1f}" if nginx_us else "",
        f"{got.memory_mb:,.0f}",
        str(got.failed),
    ]


def _idle(targets: Sequence[Target]) -> str:
    (idle,) = (target.idle for target in targets if target.idle and "all on" in target.name)
    return f"{idle.cpu_ns / 1e7:.1f} % of a core"


def _injected(targets: Sequence[Target]) -> str:
    """Return what was recorded, so that a table without injection cannot pass for one with it."""
    (installation,) = (target.installation for target in targets if target.installation and "all on" in target.name)
    with sqlite3.connect(installation.database_path) as connection:
        n_responses, n_tokens, share = connection.execute(
            """
            SELECT count(*), avg(injected_tokens),
              avg(id IN (SELECT response_id FROM injections WHERE kind = 'context'))
            FROM responses
            """
        ).fetchone()
    return (
        f"{n_responses:,} responses recorded, {n_tokens or 0:.0f} tokens injected in the mean, "
        f"contexts in {share or 0:.0%} of the requests"
    )
