"""A tenant's refit from beginning to end: its texts sent to the teacher without what is personal, fitted, checked.

What was paid for is committed batch by batch, so a refit that is killed goes on where it was. It is served only when
the check is won, and then entries get their vectors from ``indexing.py`` while the local ones go on serving.
"""

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np

from learner.embedding_server import RefusedError
from learner.errors import ModelError
from learner.knowledge.calibration import find_threshold, owners_of, read_unrelated
from learner.knowledge.privacy import declared_names, remove_personal_data
from learner.knowledge.refit import MIN_CHECKED, Judged, Seen, Text, fit, judge
from store import refits
from store.clock import Clock, parse_iso
from store.config import Config, ContextsSection, database_path
from store.context_vectors import served_wordings
from store.database import Database
from store.embedding import Embedder, LocalEmbedder, RefittedEmbedder, Vector
from store.prices import PriceBook
from store.refit_table import RefitTable, refit_name
from store.refits import Checked, RefitRow
from store.remote_embedding import Embedded
from store.run_lock import run_lock

PROVIDER: Final = "openai"  # whose prices are looked up
MAX_CHECKED: Final = 500  # entries, evenly chosen of more; the phrasings of the others are fitted to
MAX_PER_VOICE: Final = 200  # texts of one user: nobody's flood takes the place of what others ask
DAY_S: Final = 86_400.0

log = logging.getLogger(__name__)


class Teacher(Protocol):
    """The embedding server; ``learner.embedding_server`` has the real one."""

    @property
    def name(self) -> str: ...

    def embed(self, texts: Sequence[str]) -> Embedded:
        """Return the vectors of *texts*; raises RefusedError, ModelError."""
        ...


@dataclass(frozen=True, slots=True)
class Refitting:
    """What a refit works with."""

    config: Config
    teacher: Teacher
    embedder: LocalEmbedder
    prices: PriceBook
    clock: Clock


@dataclass(frozen=True, slots=True)
class Material:
    """What a refit is made of and checked on."""

    texts: dict[str, frozenset[str]]
    """Without personal data, each with who said it."""
    checked: list[tuple[str, ...]]
    """The phrasings of entries, none of them among the texts."""


def refit(work: Refitting, db: Database, tenant_id: str, *, is_forced: bool = False) -> str:
    """Make the tenant's refit if one is due, and return what came of it in a line; one at a time for a tenant.

    Args:
        work: the collaborators.
        db: the database.
        tenant_id: whose.
        is_forced: now, whenever the last one was.

    Raises:
        ConflictError: another process makes one for this tenant.
        ModelError: the teacher failed; what it answered before is kept for the next try.
    """
    with run_lock(database_path(work.config.store), f"refit {tenant_id}", wait_s=0.0):
        reason = None if is_forced else _not_due(work, db, tenant_id)
        return reason or _refit(work, db, tenant_id)


def _not_due(work: Refitting, db: Database, tenant_id: str) -> str | None:
    finished = [one.finished_at for one in refits.list_refits(db, tenant_id) if one.finished_at]
    interval_s = work.config.refit.interval_days * DAY_S
    if finished and work.clock.now_s() - parse_iso(max(finished)) < interval_s:
        return f"the last refit was less than {work.config.refit.interval_days:g} days ago"
    return None


def _refit(work: Refitting, db: Database, tenant_id: str) -> str:
    material = _material(work, db, tenant_id, _until_seq(work, db, tenant_id))
    if len(material.checked) < MIN_CHECKED:
        return f"{len(material.checked)} entries have two phrasings; a refit is checked on {MIN_CHECKED} or more"
    if len(material.texts) < work.config.refit.min_texts:
        return f"{len(material.texts)} different texts; a refit is made of {work.config.refit.min_texts} or more"
    row = refits.begin_refit(
        db, tenant_id, local_model=work.embedder.name, teacher=work.teacher.name, now_s=work.clock.now_s()
    )
    known = _ask(work, db, row, list(material.texts))
    texts = [text for text in material.texts if refits.text_key(text) in known]
    if len(texts) < work.config.refit.min_texts:
        return _refuse(work, db, row, f"{len(texts)} texts have a vector of the teacher within its bounds")
    table = fit(
        [Text(work.embedder.token_ids(text), material.texts[text]) for text in texts],
        work.embedder.table,
        np.stack([known[refits.text_key(text)] for text in texts]),
        name=refit_name(work.embedder.name, row.id),
        max_tokens=work.config.refit.max_tokens,
    )
    return _decide(
        work, db, row, table, len(texts), check(work.embedder, table, material.checked, work.config.contexts)
    )


def _until_seq(work: Refitting, db: Database, tenant_id: str) -> int:
    """Return up to which record questions count: that of a refit under way, unless it is under way for too long."""
    collecting = [one for one in refits.list_refits(db, tenant_id) if one.status == "collecting"]
    for one in collecting:
        if work.clock.now_s() - parse_iso(one.created_at) < work.config.refit.interval_days * DAY_S:
            return one.until_seq
        refits.renew_refit(db, one, now_s=work.clock.now_s())
    return refits.newest_seq(db, tenant_id)


def _material(work: Refitting, db: Database, tenant_id: str, until_seq: int) -> Material:
    """Return the tenant's texts: what was asked and what entries are asked with, those that are checked left out."""
    wordings = [
        phrasings
        for wording in served_wordings(db, tenant_id)
        if len(phrasings := tuple(dict.fromkeys(filter(str.strip, wording.questions)))) > 1
    ]
    chosen = set(np.linspace(0, len(wordings) - 1, min(len(wordings), MAX_CHECKED)).astype(np.int64).tolist())
    checked = [wordings[row] for row in sorted(chosen)]
    unseen = {" ".join(phrasing.casefold().split()) for phrasings in checked for phrasing in phrasings}
    texts: dict[str, frozenset[str]] = {}
    limit = work.config.refit.max_texts
    n_said: Counter[str] = Counter()

    def take(said: str, voice: str) -> None:
        n_said[voice] += 1
        if n_said[voice] > MAX_PER_VOICE:
            return
        text = remove_personal_data(said, [*declared_names(said), voice]).strip()
        is_wanted = text and " ".join(text.casefold().split()) not in unseen
        if is_wanted and (text in texts or len(texts) < limit):
            texts[text] = texts.get(text, frozenset()) | {voice}

    for row, phrasings in enumerate(wordings):
        if row not in chosen:
            for phrasing in phrasings:
                take(phrasing, f"entry {row}")
    for question, voice in refits.asked_questions(db, tenant_id, until_seq=until_seq, limit=limit):
        take(question, voice)
    return Material(texts, checked)


def _ask(work: Refitting, db: Database, row: RefitRow, texts: Sequence[str]) -> dict[bytes, Vector]:
    """Return the teacher's vectors of *texts*, as many as the bound on cost allows; those known are not asked for."""
    known = dict(refits.teacher_vectors(db, row.tenant_id, work.teacher.name))
    missing = [text for text in texts if refits.text_key(text) not in known]
    cost_usd, size = row.cost_usd, work.config.embedding.batch_size
    for start in range(0, len(missing), size):
        if cost_usd >= work.config.refit.max_cost_usd:
            log.warning("tenant %s: the refit goes on with fewer texts ([refit] max_cost_usd)", row.tenant_id)
            break
        batch = missing[start : start + size]
        try:
            embedded = work.teacher.embed(batch)
        except RefusedError as exc:  # which of them it is does not matter: thousands are left
            log.info("tenant %s: %d texts are left out of the refit: %s", row.tenant_id, len(batch), exc)
            continue
        price = work.prices.cost_usd(work.config.embedding.model, PROVIDER, embedded.prompt_tokens, 0, 0)
        refits.put_teacher_vectors(
            db, row, batch, embedded.vectors, prompt_tokens=embedded.prompt_tokens, cost_usd=price
        )
        cost_usd += price
        known |= {refits.text_key(text): vector for text, vector in zip(batch, embedded.vectors, strict=True)}
    return known


def check(
    embedder: LocalEmbedder, table: RefitTable, checked: Sequence[tuple[str, ...]], section: ContextsSection
) -> Judged:
    """Return what *table* gains over the local one on entries with these phrasings, each with its own threshold."""
    phrasings = [phrasing for asked in checked for phrasing in asked]
    everyday = read_unrelated()
    owners = owners_of([len(asked) for asked in checked])

    def seen(maker: Embedder) -> Seen:
        return Seen(maker.embed(phrasings), maker.embed(everyday))

    def threshold(found: Seen, entries: Vector) -> float:
        if not section.max_unrelated:
            return section.similarity_threshold
        own = find_threshold(
            entries,
            found.phrasings,
            owners,
            found.everyday,
            share=section.max_unrelated,
            least=section.least_similarity,
        )
        return section.similarity_threshold if own is None else own

    return judge(seen(embedder), seen(RefittedEmbedder(embedder, table)), owners, threshold)


def _decide(  # noqa: PLR0917
    work: Refitting, db: Database, row: RefitRow, table: RefitTable, n_texts: int, judged: Judged
) -> str:
    told = f"reciprocal rank {judged.gain:+.3f} (at least {judged.gain_low:+.3f}) on {judged.n_entries} entries"
    note = (
        ""
        if judged.is_won
        else f"the check was not won: {told}, everyday questions that find anything {judged.strange_gain:+.3f}"
    )
    checked = Checked(n_texts, len(table.token_ids), judged.n_entries, judged.gain, judged.gain_low, note)
    if judged.is_won:
        generation = refits.serve_refit(db, row, table, checked, now_s=work.clock.now_s())
        return f"{row.id} is served from generation {generation} on: {told}"
    refits.refuse_refit(db, row, checked, now_s=work.clock.now_s())
    return f"{row.id}: {note}"


def _refuse(work: Refitting, db: Database, row: RefitRow, note: str) -> str:
    refits.refuse_refit(db, row, Checked(0, 0, 0, None, None, note), now_s=work.clock.now_s())
    return f"{row.id}: {note}"


def refit_quietly(make: Callable[[], Refitting], db: Database, tenant_id: str) -> None:
    """Make a refit if one is due; a teacher that fails is asked again with the next job, and nothing else is lost."""
    try:
        log.info("tenant %s: refit: %s", tenant_id, refit(make(), db, tenant_id))
    except ModelError as exc:
        log.warning("tenant %s: the refit waits for the next run: %s", tenant_id, exc)
