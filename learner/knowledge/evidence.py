"""What entries do for the replies that have them: what helps nobody is proposed for deletion, what is odd is told.

In a share ``[contexts] hold_back`` of conversations an entry that was found is left out by lot; what replies with it
got, less what those without it got, is its lift, clustered by user and valid at every look (``patterns.evidence``).
The lot takes thousands of replies to speak. So an entry is also proposed when it failed most of the users who said
anything, and significantly more of them than other entries fail theirs. Nothing is deleted: a person decides.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np

from learner.knowledge.progress import Run
from learner.patterns.evidence import LEVEL, Rows, contrast, lift_interval, log_e_value
from store.alerts import alerts_since, raise_alert
from store.clock import days_before
from store.config import ContextsSection
from store.context_evidence import (
    ContextEvidence,
    ContextUse,
    list_uses,
    recent_questions,
    replace_evidence,
    sole_users,
)
from store.context_review import propose_deletion
from store.contexts import ContextRow, list_contexts
from store.embedding import Vector
from store.paging import all_rows

Z: Final = 1.96
MIN_FAILED_USERS: Final = 3  # fewer may be one person and a friend
FAILS: Final = 0.5  # share of its users from which an entry is said to fail
RECENT_QUESTIONS: Final = 1_000  # that entries are held against
UNRELATED: Final = 0.2  # cosine below which two questions have nothing to do with each other; those about one matter
# have .3 and more
HUB_QUESTIONS: Final = 3  # unrelated ones near one entry: what answers one question has no business with three
MIN_SHARED_USES: Final = 200  # before shares of uses mean something
MIN_SHARED_ENTRIES: Final = 10  # served: among few, each has a large share
BLOCK: Final = 4_096  # entries compared with all recent questions at once
MAX_LOG: Final = 600.0  # of an e-value, so that it can be stored


@dataclass(frozen=True, slots=True)
class Totals:
    """Over all entries: uses, voices (one for each entry and user who said anything), and how many of them failed."""

    n_uses: int
    n_voices: int
    n_failed: int

    @classmethod
    def of(cls, by_entry: Mapping[str, Sequence[ContextUse]]) -> "Totals":
        """Return the totals of the uses of each entry."""
        treated = [[use for use in uses if use.treated] for uses in by_entry.values()]
        voices = [_failed_users(uses) for uses in treated]
        return cls(sum(map(len, treated)), sum(map(len, voices)), sum(sum(one.values()) for one in voices))


def judge_entries(run: Run, section: ContextsSection) -> int:
    """Work the evidence out anew, propose what fails, tell what is odd; return how many were proposed."""
    uses = list_uses(run.db, run.tenant_id, since=days_before(run.now_s, section.evidence_days))
    entries = _entries(run)
    hubs = _unrelated_questions(run, entries, section.similarity_threshold)
    by_entry = uses_by_entry(uses)
    totals = Totals.of(by_entry)
    found = [evidence_of(entry_uses, totals, hubs.pop(key, 0)) for key, entry_uses in by_entry.items()]
    found += [ContextEvidence(context_id, n_unrelated=n) for context_id, n in hubs.items() if n]
    with run.db.transaction():
        replace_evidence(run.db, run.tenant_id, found, now_s=run.now_s)
        n_proposed = sum([_propose(run, one) for one in found if one.proposal])
        _tell_odd(run, section, found, len([entry for entry in entries if entry.is_served]))
    return n_proposed


def evidence_of(entry_uses: Sequence[ContextUse], totals: Totals, n_unrelated: int = 0) -> ContextEvidence:
    """Return what *entry_uses*, those of one entry, say about it among all entries."""
    context_id = entry_uses[0].context_id
    treated = [use for use in entry_uses if use.treated]
    failed = _failed_users(treated)
    lift, interval, harm = _contrast(entry_uses)
    found = ContextEvidence(
        context_id=context_id,
        n_uses=len(treated),
        n_held_back=len([use for use in entry_uses if not use.treated and use.propensity > 0]),
        n_users=len({use.user for use in entry_uses}),
        n_failed=sum(use.is_failed for use in treated),
        n_rated_users=len(failed),
        n_failed_users=sum(failed.values()),
        lift=lift,
        lift_low=interval[0] if interval else None,
        lift_high=interval[1] if interval else None,
        harm_e_value=harm,
        use_share=len(treated) / max(totals.n_uses, 1),
        n_unrelated=n_unrelated,
    )
    n_others = totals.n_voices - found.n_rated_users
    usual = (totals.n_failed - found.n_failed_users + 1) / (n_others + 2)
    return _with_proposal(found, usual if n_others >= MIN_FAILED_USERS else FAILS)


def _with_proposal(found: ContextEvidence, usual: float) -> ContextEvidence:
    reasons = []
    if found.harm_e_value is not None and found.harm_e_value >= LEVEL and found.n_users >= MIN_FAILED_USERS:
        reasons.append(
            f"replies with it do worse than those from which it was held back: {found.lift:+.2f} "
            f"({found.lift_low:+.2f} to {found.lift_high:+.2f}), e-value {found.harm_e_value:.0f}"
        )
    n, n_failed = found.n_rated_users, found.n_failed_users
    if n_failed >= MIN_FAILED_USERS and n_failed > FAILS * n and wilson_low(n_failed, n) > usual:
        reasons.append(f"it failed {n_failed} of {n} users who said anything; usual are {usual:.0%}")
    if not reasons:
        return found
    figures = f"{found.n_uses} uses, {found.n_held_back} held back, {found.n_users} users, {found.n_failed} failures"
    values = {name: getattr(found, name) for name in ContextEvidence.__dataclass_fields__}
    return ContextEvidence(**(values | {"proposal": f"{'; '.join(reasons)} ({figures})"}))


def wilson_low(n_hits: int, n: int) -> float:
    """Return the low end of the 95 % interval of a share. Source: Wilson 1927, JASA 22(158).

    >>> round(wilson_low(3, 3), 2), wilson_low(0, 0)
    (0.44, 0.0)
    """
    if not n or not n_hits:
        return 0.0
    share = n_hits / n
    middle = share + Z * Z / (2 * n)
    reach = Z * math.sqrt(share * (1 - share) / n + Z * Z / (4 * n * n))
    return (middle - reach) / (1 + Z * Z / n)


def uses_by_entry(uses: Sequence[ContextUse]) -> dict[str, list[ContextUse]]:
    """Return *uses* by entry."""
    by_entry: dict[str, list[ContextUse]] = {}
    for use in uses:
        by_entry.setdefault(use.context_id, []).append(use)
    return by_entry


def _failed_users(treated: Sequence[ContextUse]) -> dict[str, bool]:
    """Return, for each user who said anything about a reply, whether most of these replies failed: a voice each."""
    marks: dict[str, list[bool]] = {}
    for use in treated:
        if use.is_rated:
            marks.setdefault(use.user, []).append(use.is_failed)
    return {user: 2 * sum(found) > len(found) for user, found in marks.items()}


def _contrast(entry_uses: Sequence[ContextUse]) -> tuple[float | None, tuple[float, float] | None, float | None]:
    """Return the lift, its interval and the e-value against "does no harm", of the uses that the lot decided."""
    drawn = [use for use in entry_uses if 0 < use.propensity < 1]
    treated = np.array([use.treated for use in drawn], np.bool_)
    if treated.all() or not treated.any():
        return None, None, None
    satisfaction = np.array([use.satisfaction for use in drawn], np.float64)
    codes = {user: code for code, user in enumerate(dict.fromkeys(use.user for use in drawn))}
    rows = Rows(
        treated=treated,
        propensity=np.array([use.propensity for use in drawn], np.float64),
        residual=satisfaction - satisfaction.mean(),
        weight=np.ones(len(drawn)),
        cluster=np.array([codes[use.user] for use in drawn], np.int64),
        created_s=np.zeros(len(drawn)),
        is_rated=np.array([use.is_rated for use in drawn], np.bool_),
    )
    variance = float(satisfaction.var())
    helps = contrast(rows)
    if variance <= 0:
        return helps.lift, None, None
    harms = contrast(
        Rows(
            rows.treated,
            rows.propensity,
            -rows.residual,
            rows.weight,
            rows.cluster,
            rows.created_s,
            rows.is_rated,
        )
    )
    return helps.lift, lift_interval(helps, variance), math.exp(min(log_e_value(harms, variance), MAX_LOG))


def _propose(run: Run, found: ContextEvidence) -> bool:
    if not propose_deletion(run.db, run.tenant_id, found.context_id, reason=found.proposal or "", now_s=run.now_s):
        return False
    run.tally.changes.append(f"proposed to delete {found.context_id}: {found.proposal}")
    raise_alert(
        run.db,
        run.tenant_id,
        kind="context_proposed_deletion",
        message=f"context {found.context_id} keeps failing; it is proposed for deletion (still served)",
        detail={"context_id": found.context_id, "reason": found.proposal},
        run_id=run.id,
        now_s=run.now_s,
    )
    return True


def _entries(run: Run) -> list[ContextRow]:
    """Return the entries that are served or wait for their first review."""
    name = run.collaborators.embedder.name
    return [
        entry
        for status in ("pending_approval", "approved", "flagged")
        for entry in all_rows(partial(list_contexts, run.db, run.tenant_id, status=status))
        if entry.embedding_model == name
    ]


def _unrelated_questions(run: Run, entries: Sequence[ContextRow], threshold: float) -> dict[str, int]:
    """Return how many recent questions are near each entry that have nothing to do with each other."""
    questions = recent_questions(run.db, run.tenant_id, RECENT_QUESTIONS)
    if not questions or not entries:
        return {}
    asked = run.collaborators.embedder.embed(questions)
    counts = {}
    for start in range(0, len(entries), BLOCK):
        block = entries[start : start + BLOCK]
        is_near = np.stack([entry.embedding for entry in block]) @ asked.T >= threshold
        for entry, near in zip(block, is_near, strict=True):
            counts[entry.id] = n_unrelated(asked[near])
    return counts


def n_unrelated(vectors: Vector) -> int:
    """Return how many of *vectors* (n, d), taken greedily, have nothing to do with any one taken before."""
    taken: list[int] = []
    for row, vector in enumerate(vectors):
        if not taken or float((vectors[taken] @ vector).max()) < UNRELATED:
            taken.append(row)
    return len(taken)


def _tell_odd(run: Run, section: ContextsSection, found: Sequence[ContextEvidence], n_served: int) -> None:
    """Raise an alert for entries near unrelated questions, and for shares of uses that are too large; each once."""
    for one in found:
        if one.n_unrelated >= HUB_QUESTIONS:
            text = (
                f"context {one.context_id} is near {one.n_unrelated} questions that have nothing to do with each other"
            )
            _alert_once(run, "context_suspicious", one.context_id, text)
    n_uses = sum(one.n_uses for one in found)
    if n_uses < MIN_SHARED_USES or n_served < MIN_SHARED_ENTRIES:
        return
    by_user: dict[str, int] = {}
    users = sole_users(run.db, run.tenant_id, [one.context_id for one in found])
    for one in found:
        if one.use_share > section.alarm_share:
            text = f"context {one.context_id} has {one.use_share:.0%} of all uses of entries"
            _alert_once(run, "context_share", one.context_id, text)
        user = users.get(one.context_id)
        if user is not None:
            by_user[user] = by_user.get(user, 0) + one.n_uses
    for user, n in by_user.items():
        if n > section.alarm_share * n_uses:
            text = f"entries that rest on one user alone have {n / n_uses:.0%} of all uses of entries"
            ids = sorted(context_id for context_id, sole in users.items() if sole == user)
            _alert_once(run, "context_user_share", ids[0], text)


def _alert_once(run: Run, kind: str, context_id: str, text: str) -> None:
    known = {alert.detail.get("context_id") for alert in alerts_since(run.db, run.tenant_id, kind, 0.0)}
    if context_id in known:
        return
    run.tally.changes.append(text)
    raise_alert(
        run.db,
        run.tenant_id,
        kind=kind,
        message=text,
        detail={"context_id": context_id},
        run_id=run.id,
        now_s=run.now_s,
    )
