"""The sums that a tenant's learner keeps between runs: read, brought up to the records, written back.

What is older than ``[patterns] settle_days`` is *settled*: it is taken in once. What is newer is taken in afresh by
every run, on a copy, so that votes that come late count as if they had been there at once. What happens to settled
records later (a vote, one that is replaced or taken back) comes in as a difference.
"""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, Final, cast

import msgspec

from learner.patterns.batches import add_to_history, differences_of, observations_of, revise_history
from learner.patterns.beliefs import GroupField, Key, Scope
from learner.patterns.characteristics import VERSION as EXTRACTORS
from learner.patterns.history import History
from learner.patterns.keys import Words, words_of
from learner.patterns.natural import natural_of
from learner.patterns.observations import Column, Natural
from learner.patterns.states import Reset
from learner.patterns.statistics import Statistics
from store.config import FeedbackSection, PatternsSection
from store.database import Database
from store.learner_states import LearnerState
from store.patterns import PatternRow
from store.windows import Batch, Span, read_batches, read_revised

log = logging.getLogger(__name__)

FORM: Final = 2  # of what is written here; raise it when it changes
DIGEST_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class Cursor:
    """Up to where the records were read: the newest ``seq`` of responses, signals and signals that were taken back."""

    response: int = 0
    signal: int = 0
    removal: int = 0


@dataclass(frozen=True, slots=True)
class Kept:
    """The sums over the records up to ``cursor``."""

    statistics: Statistics
    history: History
    cursor: Cursor
    group_field: GroupField | None
    resets: tuple[Reset, ...] = ()  # newest of each key, to begin its evidence anew again when sums are made anew

    def copy(self) -> "Kept":
        """Return the same sums, to go on with."""
        return replace(self, statistics=self.statistics.copy(), history=self.history.copy())


@dataclass(frozen=True, slots=True)
class Source:
    """Where a run's records come from and how they are read."""

    db: Database
    tenant_id: str
    settings: PatternsSection
    feedback: FeedbackSection
    rows: Sequence[PatternRow]
    since_at: str  # begin of the window, for sums that are made anew


def fresh(source: Source, group_field: GroupField | None, cursor: Cursor, resets: Sequence[Reset]) -> Kept:
    """Return sums without records; those after *cursor* come next."""
    statistics = Statistics(source.settings, family_weights(source.feedback), group_field)
    known = tuple(one for one in resets if group_field is not None or one.key.scope.group is None)
    for one in known:
        statistics.reset(one.key, one.at_s)
    return Kept(statistics, History(), cursor, group_field, known)


def family_weights(feedback: FeedbackSection) -> dict[str, float]:
    """Return what a signal of each family is worth as people configured it; a thumb up stands for its family."""
    return {
        "thumb" if name == "thumbs_up" else name: weight
        for name, weight in feedback.weights.items()
        if name != "thumbs_down"
    }


def restore(state: LearnerState | None, source: Source) -> Kept | None:
    """Return the sums in *state*, or None when they must be made anew: there are none, of another form, or damaged."""
    if state is None:
        return None
    if not state.state:
        log.info("tenant %s: sums that were dropped are made anew from the records", source.tenant_id)
        return None
    if (state.version, state.cursor.get("versions")) != (FORM, _versions()):
        log.info("tenant %s: sums of another version are made anew from the records", source.tenant_id)
        return None
    digest, body = state.state[:DIGEST_BYTES], state.state[DIGEST_BYTES:]
    if digest != _digest(body):
        log.warning("tenant %s: the sums in learner_states are damaged: made anew from the records", source.tenant_id)
        return None
    field = cast("GroupField | None", state.group_field or None)
    statistics, history = msgspec.msgpack.decode(body, type=tuple[bytes, bytes])
    return Kept(
        Statistics.decode(statistics, source.settings, family_weights(source.feedback), field),
        History.decode(history),
        msgspec.convert(state.cursor["records"], Cursor),
        field,
        resets_of(state),
    )


def resets_of(state: LearnerState | None) -> tuple[Reset, ...]:
    """Return whose evidence began anew, and when; known even where the sums are damaged."""
    known = [] if state is None else state.cursor.get("resets", [])
    return tuple(
        Reset(Key(Scope(question_type, group), Column(dimension, value)), at_s)
        for question_type, group, dimension, value, at_s in known
    )


def as_state(kept: Kept, priorities: Mapping[str, float]) -> LearnerState:
    """Return the sums in the form of their table."""
    body = msgspec.msgpack.encode((kept.statistics.encode(), kept.history.encode()))
    cursor: dict[str, Any] = {
        "records": asdict(kept.cursor),
        "versions": _versions(),
        "resets": [
            [one.key.scope.question_type, one.key.scope.group, one.key.column.dimension, one.key.column.value, one.at_s]
            for one in kept.resets
        ],
    }
    return LearnerState(FORM, _digest(body) + body, cursor, kept.group_field or "", priorities)


def _versions() -> list[int]:
    return [Statistics.VERSION, EXTRACTORS]


def _digest(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=DIGEST_BYTES).digest()


@dataclass(frozen=True, slots=True)
class News:
    """What came since the run before."""

    n_responses: int = 0
    n_signals: int = 0
    satisfied: float = 0.0  # sum over the responses

    @property
    def satisfaction(self) -> float | None:
        """Return the mean satisfaction of the new responses, in [-1, 1], or None without any."""
        return self.satisfied / self.n_responses if self.n_responses else None

    def __add__(self, other: "News") -> "News":
        return News(
            self.n_responses + other.n_responses, self.n_signals + other.n_signals, self.satisfied + other.satisfied
        )


@dataclass(frozen=True, slots=True)
class CaughtUp:
    """The sums over what is settled, a copy that also saw the rest, and what of it is new."""

    kept: Kept
    seen: Kept
    news: News
    fresh: History  # what people thought of the replies that are new


def catch_up(kept: Kept, source: Source, since: Cursor, until: Cursor, *, settled: int) -> CaughtUp:
    """Take what is settled, up to response *settled*, into *kept*, and what is newer into a copy.

    Call it inside one snapshot of the database, in which *until* was read; *since* is where the run before ended.
    """
    settled = max(settled, kept.cursor.response)
    fresh = History()
    news = _revise(kept, source, since, until)
    news += _take_in(kept, source, since, Span(kept.cursor.response, settled, until.signal, source.since_at), fresh)
    kept = replace(kept, cursor=Cursor(settled, until.signal, until.removal))
    seen = kept.copy()
    news += _take_in(seen, source, since, Span(settled, until.response, until.signal, source.since_at), fresh)
    return CaughtUp(kept, seen, news, fresh)


def _revise(kept: Kept, source: Source, since: Cursor, until: Cursor) -> News:
    words, n_signals = _words(source, kept), 0
    revisions = read_revised(
        source.db,
        source.tenant_id,
        Span(0, kept.cursor.response, until.signal),
        after_signal=kept.cursor.signal,
        removals=(kept.cursor.removal, until.removal),
        group_field=kept.group_field,
    )
    for revised in revisions:
        kept.statistics.absorb(differences_of(revised, words, _reader(kept)), is_late=True)
        revise_history(kept.history, revised)
        n_signals += int((revised.now.signals.seq > since.signal).sum())
    return News(n_signals=n_signals)


def _take_in(kept: Kept, source: Source, since: Cursor, span: Span, fresh: History) -> News:
    words, news = _words(source, kept), News()
    for batch in read_batches(source.db, source.tenant_id, span, group_field=kept.group_field):
        observations = observations_of(batch, words, _reader(kept))
        kept.statistics.absorb(observations)
        is_new = batch.responses.seq > since.response
        add_to_history(kept.history, fresh, batch, is_new)
        n_signals = int((batch.signals.seq > since.signal).sum())
        news += News(int(is_new.sum()), n_signals, float(observations.satisfaction[is_new].sum()))
    return news


def _words(source: Source, kept: Kept) -> dict[str, Words]:
    return {row.id: words_of(row, kept.group_field) for row in source.rows}


def _reader(kept: Kept) -> "partial[Natural]":
    return partial(_natural, known=tuple(kept.statistics.axes.columns))


def _natural(batch: Batch, known: Sequence[Column]) -> Natural:
    responses = batch.responses
    return natural_of(responses.characteristics, responses.terms, responses.users, known)


def with_resets(kept: Kept, resets: Sequence[Reset]) -> Kept:
    """Return the sums with the evidence of some keys begun anew; what began anew then or later already stays so."""
    newest = {one.key: one for one in kept.resets}
    for one in resets:
        if one.key not in newest or newest[one.key].at_s < one.at_s:
            kept.statistics.reset(one.key, one.at_s)
            newest[one.key] = one
    return replace(kept, resets=tuple(newest.values()))
