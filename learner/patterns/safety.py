"""What a fall of satisfaction means for a run: stop, take back what is new, go back to what was served before."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from learner.patterns.crash import REFERENCE_BINS, SPANS, Crash, find_crash, is_recovered
from learner.patterns.history import BIN_S, History
from store.alerts import Alert
from store.clock import DAY_S, parse_iso
from store.config import PatternsSection
from store.generations import GenerationRow

SUSPECT_DAYS: Final = 7.0  # what was activated this recently before a fall may have caused it
SLACK_S: Final = BIN_S  # by which a fall may have begun before the bin that shows it
MEMORY_S: Final = (REFERENCE_BINS + max(SPANS)) * BIN_S  # so long a fall can be seen, and must not be told twice


@dataclass(frozen=True, slots=True)
class Safety:
    """What the run must keep to."""

    crash: Crash | None  # a new one: alert, and take *suspects* back to trial; None also while a known one lasts
    is_frozen: bool  # no new trials, no activations
    revert_to: int | None  # the generation that the tenant goes back to, in one step
    suspects: tuple[str, ...]  # patterns that were activated shortly before the fall
    reason: str  # in words, for alert, events and report; "" when all is well


def safety_of(  # noqa: PLR0917  # all that safety depends on
    history: History,
    alerts: Sequence[Alert],
    activations: Mapping[str, float],
    generations: Sequence[GenerationRow],
    now_s: float,
    settings: PatternsSection,
    fresh: History | None = None,
) -> Safety:
    """Return what the run must keep to; pure.

    Args:
        history: sums up to the run.
        alerts: the tenant's alerts of the last weeks, or its newest of kind crash alone; any order.
        activations: pattern -> seconds since 1970 of its newest activation.
        generations: those with a plan, of the last weeks; any order.
        now_s: the run's time, seconds since 1970.
        settings: thresholds.
        fresh: the part of *history* that is of replies which this run read first.
    """
    last = _last_crash(alerts, now_s)
    found = find_crash(history, now_s, settings, fresh)
    if found is None or (last is not None and _is_known(history, last, found, settings)):
        is_frozen = last is not None and _is_frozen(history, last, now_s, settings)
        told = f"frozen since the crash of {last.created_at}" if last is not None and is_frozen else ""
        return Safety(None, is_frozen, None, (), told)
    suspects = tuple(
        sorted(pattern_id for pattern_id, at_s in activations.items() if found.began_s - at_s <= SUSPECT_DAYS * DAY_S)
    )
    reason = f"crash: satisfaction index fell from {found.before:.2f} to {found.now:.2f} ({found.z:.1f} sd)"
    is_blamed = found.blame_z is not None and found.blame_z < -settings.blame_z
    revert_to = _last_good(generations, found) if is_blamed else None
    if is_blamed:
        reason += f"; treated conversations fell further than the others ({found.blame_z:.1f} sd)"
    return Safety(found, True, revert_to, suspects, reason)


def detail_of(crash: Crash) -> dict[str, float | None]:
    """Return what an alert of kind crash must hold for later runs to know the fall by."""
    return {
        "before": crash.before,
        "now": crash.now,
        "z": crash.z,
        "began_s": crash.began_s,
        "blame_z": crash.blame_z,
    }


def _last_crash(alerts: Sequence[Alert], now_s: float) -> Alert | None:
    crashes = [one for one in alerts if one.kind == "crash" and 0 <= now_s - parse_iso(one.created_at) <= MEMORY_S]
    return max(crashes, key=lambda one: one.created_at, default=None)


def _is_known(history: History, alert: Alert, crash: Crash, settings: PatternsSection) -> bool:
    """Return whether the alert told of this fall already: it is not as deep again, and nothing recovered in between."""
    if crash.now < float(alert.detail["now"]) * (1 - settings.crash_drop):
        return False
    raised_s = parse_iso(alert.created_at)
    before_it_s = crash.began_s - 1
    if before_it_s <= raised_s:
        return True
    return not is_recovered(history, before_it_s, float(alert.detail["before"]), settings)


def _is_frozen(history: History, alert: Alert, now_s: float, settings: PatternsSection) -> bool:
    age_s = now_s - parse_iso(alert.created_at)
    if alert.acknowledged_at is not None or age_s > settings.freeze_days * DAY_S:
        return False
    return not is_recovered(history, now_s, float(alert.detail["before"]), settings)


def _last_good(generations: Sequence[GenerationRow], crash: Crash) -> int | None:
    """Return the newest generation that was published surely before the fall; None when it is the one in service."""
    if not generations:
        return None
    served = max(generation.number for generation in generations)
    good = [one.number for one in generations if parse_iso(one.created_at) < crash.began_s - SLACK_S]
    newest = max(good, default=None)
    return newest if newest != served else None
