"""A person, or one conversation, forgotten: records, signals, examples and what was learned from them alone.

All tables in one transaction, by the command or the learner; no other module writes to as many.
"""

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, NoReturn

from store.audit import record
from store.clock import iso
from store.database import Database
from store.errors import InvalidError, NotFoundError, UnavailableError
from store.forgotten_contexts import FORGOTTEN, Compose, ForgottenContexts, forget_in_contexts, unnamed
from store.forgotten_segments import blank_records
from store.forgotten_words import forget_words
from store.generations import current_number
from store.learner_states import forget_learner_state
from store.pseudonyms import hash_phone, hash_user
from store.records import ResponseRecord
from store.refits import forget_teacher_vectors
from store.segments import ingest_orphans, reader_lock
from store.tenants import get_tenant

IN_FLIGHT_S: Final = 0.5  # in which a recorder commits what it had read before its segment was made blank
MAX_SWEEPS: Final = 3  # of records that were in flight


@dataclass(frozen=True, slots=True)
class Subject:
    """Whom or what to forget: every name of one person, or conversations."""

    user_ids: tuple[str, ...] = ()
    conversation_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What was forgotten, or with *is_dry_run* would be."""

    is_dry_run: bool
    rows: Mapping[str, int]  # deleted, by table
    segment_records: int  # made blank before or after they reached the database
    conversations: tuple[str, ...]  # deleted as a whole
    shared_conversations: tuple[str, ...]  # others spoke in them too: they lost what was this person's
    withdrawn_contexts: tuple[str, ...]
    trimmed_contexts: tuple[str, ...]
    generation: int | None  # published, None when nothing that is served changed
    is_scrubbed: bool = False  # no file of the database holds the text any more


@dataclass(frozen=True, slots=True)
class _Extent:
    """The rows that a subject reaches, by id."""

    whole: tuple[str, ...]
    shared: tuple[str, ...]
    responses: tuple[str, ...]
    upstream_ids: tuple[str, ...]
    signals: tuple[str, ...]
    questions: tuple[str, ...]


@dataclass(slots=True)
class _Work:
    """One forgetting under way."""

    db: Database
    tenant_id: str
    subject: Subject
    compose: Compose
    actor: str
    now_s: float
    rows: dict[str, int] = field(default_factory=dict)

    def delete(self, table: str, condition: str, **ids: Iterable[str]) -> None:
        """Delete the tenant's rows of *table* under *condition*, in which ``:name`` is a list of ids."""
        n = self.db.execute(f"DELETE FROM {table} WHERE tenant_id = :tenant_id AND ({condition})", self.values(**ids))
        self.rows[table] = self.rows.get(table, 0) + n

    def values(self, **ids: Iterable[str]) -> dict[str, Any]:
        return {
            "tenant_id": self.tenant_id,
            "users": json.dumps(self.subject.user_ids),
            **{name: json.dumps(list(values)) for name, values in ids.items()},
        }


def names_of(secret: bytes, *, user: str | None, phone: str | None) -> tuple[str, ...]:
    """Return every name that the records may hold for a person: the app's own, and the hash of a phone number."""
    return (*([user] if user else []), *([hash_phone(secret, phone)] if phone else []))


def forget(
    db: Database,
    tenant_id: str,
    subject: Subject,
    segments: Path,
    compose: Compose,
    *,
    actor: str,
    now_s: float,
    is_dry_run: bool = False,
) -> Forgotten:
    """Forget *subject* in one transaction and return what went; call it under the tenant's run lock.

    Records that come later are new. What a recorder had already read when its segment was made blank is deleted in
    transactions of its own right after.

    Args:
        db: the database.
        tenant_id: whose records.
        subject: users by all their names, or conversations.
        segments: where records wait for the database.
        compose: makes the vector of an entry that lost a phrasing.
        actor: a key's id, ``console`` or ``command``.
        now_s: seconds since 1970.
        is_dry_run: count, change nothing.

    Raises:
        InvalidError: no user and no conversation is named.
        NotFoundError: there is no such tenant, or it has none of the conversations named.
        UnavailableError: the database is missing, locked or damaged; nothing was changed.
        OSError: a segment cannot be read or written; call again.
    """
    if not any(one.strip() for one in (*subject.user_ids, *subject.conversation_ids)):
        raise InvalidError("user", "must name somebody: records without a user belong to nobody known")
    get_tenant(db, tenant_id)
    ingest_orphans(db, segments)
    _require(db, tenant_id, subject)
    work = _Work(db, tenant_id, subject, compose, actor, now_s)
    if is_dry_run:
        return _dry(work)
    whole = frozenset(_extent(work).whole)

    def is_meant(one: ResponseRecord) -> bool:
        is_theirs = one.user_id in subject.user_ids or one.conversation_id in whole
        return one.tenant_id == tenant_id and is_theirs and one.created_at <= iso(now_s)

    blanked = set(blank_records(segments, is_meant))
    with db.transaction():
        forgotten = _forget(work)
    blanked.update(_sweep(work, segments, is_meant))
    return replace(forgotten, segment_records=len(blanked))


class _TakenBackError(Exception):
    """Ends a transaction that was only tried."""


def _take_back() -> NoReturn:
    raise _TakenBackError


def _dry(work: _Work) -> Forgotten:
    found: list[Forgotten] = []
    try:
        with work.db.transaction():
            found.append(_forget(work))
            _take_back()
    except _TakenBackError:
        return replace(found[0], is_dry_run=True, generation=None)


def _sweep(work: _Work, segments: Path, is_meant: Callable[[ResponseRecord], bool]) -> list[str]:
    """Forget what a recorder had read before its segment was made blank; return the ids of late records."""
    blanked: list[str] = []
    with reader_lock(segments) as is_nobody_reading:
        if is_nobody_reading:
            return blanked
    for _ in range(MAX_SWEEPS):
        time.sleep(IN_FLIGHT_S)
        blanked += blank_records(segments, is_meant)
        if not _extent(work).responses:
            break
        with work.db.transaction():
            _delete_records(work, _extent(work))
    return blanked


def _require(db: Database, tenant_id: str, subject: Subject) -> None:
    for conversation_id in subject.conversation_ids:
        known = db.value(
            "SELECT 1 FROM conversations WHERE tenant_id = :tenant_id AND id = :id",
            {"tenant_id": tenant_id, "id": conversation_id},
        )
        if not known:
            raise NotFoundError(f"no conversation {conversation_id!r}")


def _extent(work: _Work) -> _Extent:
    """Return what the subject reaches: its conversations, its responses in those of others, its signals."""
    db, subject = work.db, work.subject
    whole = _ids(
        db,
        """
        SELECT c.id FROM conversations AS c
        WHERE c.tenant_id = :tenant_id AND c.user_id IN (SELECT value FROM json_each(:users))
          AND NOT EXISTS (
            SELECT 1 FROM responses AS r
            WHERE r.tenant_id = c.tenant_id AND r.conversation_id = c.id AND r.user_id <> ''
              AND r.user_id NOT IN (SELECT value FROM json_each(:users)))
        """,
        work.values(),
    )
    whole = sorted({*whole, *subject.conversation_ids})
    shared = _ids(
        db,
        """
        SELECT id FROM conversations
        WHERE tenant_id = :tenant_id AND user_id IN (SELECT value FROM json_each(:users))
          AND id NOT IN (SELECT value FROM json_each(:whole))
        UNION
        SELECT conversation_id FROM responses
        WHERE tenant_id = :tenant_id AND user_id IN (SELECT value FROM json_each(:users))
          AND conversation_id NOT IN (SELECT value FROM json_each(:whole))
        UNION
        SELECT r.conversation_id FROM response_feedback AS f JOIN responses AS r ON r.id = f.response_id
        WHERE f.tenant_id = :tenant_id AND f.user_id IN (SELECT value FROM json_each(:users))
          AND f.correction IS NOT NULL AND r.conversation_id NOT IN (SELECT value FROM json_each(:whole))
        """,
        work.values(whole=whole),
    )
    responses = db.rows(
        """
        SELECT r.id, r.upstream_id, r.question FROM responses AS r
        JOIN conversations AS c ON c.tenant_id = r.tenant_id AND c.id = r.conversation_id
        WHERE r.tenant_id = :tenant_id AND (
          r.conversation_id IN (SELECT value FROM json_each(:whole))
          OR r.user_id IN (SELECT value FROM json_each(:users))
          OR (r.user_id = '' AND c.user_id IN (SELECT value FROM json_each(:users))))
        """,
        work.values(whole=whole),
    )
    response_ids = [row["id"] for row in responses]
    signals = _ids(
        db,
        """
        SELECT id FROM response_feedback
        WHERE tenant_id = :tenant_id AND (user_id IN (SELECT value FROM json_each(:users))
          OR response_id IN (SELECT value FROM json_each(:responses)))
        """,
        work.values(responses=response_ids),
    )
    return _Extent(
        whole=tuple(whole),
        shared=tuple(shared),
        responses=tuple(response_ids),
        upstream_ids=tuple(row["upstream_id"] for row in responses if row["upstream_id"]),
        signals=tuple(signals),
        questions=tuple(row["question"] for row in responses),
    )


def _ids(db: Database, sql: str, values: Mapping[str, Any]) -> list[str]:
    return [row[0] for row in db.rows(sql, values)]


def _forget(work: _Work) -> Forgotten:
    """Do it all, inside a transaction."""
    db, tenant_id = work.db, work.tenant_id
    before = current_number(db, tenant_id)
    extent = _extent(work)
    lost = [*extent.whole, *extent.shared]
    contexts = forget_in_contexts(db, tenant_id, lost, work.compose, work.actor, work.now_s)
    work.rows["ai_contexts"] = len(contexts.withdrawn)
    _forget_news(work, lost, contexts)
    _delete_records(work, extent)
    _forget_examples(work, extent)
    _mine_again(work, [*extent.shared, *contexts.orphans.difference(lost)])
    if extent.responses or extent.signals:
        forget_learner_state(db, tenant_id)
        forget_teacher_vectors(db, tenant_id)
    _forget_names(work, extent)
    after = current_number(db, tenant_id)
    forgotten = Forgotten(
        is_dry_run=False,
        rows=work.rows,
        segment_records=0,
        conversations=extent.whole,
        shared_conversations=extent.shared,
        withdrawn_contexts=contexts.withdrawn,
        trimmed_contexts=contexts.trimmed,
        generation=after if after > before else None,
    )
    _audit(work, forgotten)
    return forgotten


def _delete_records(work: _Work, extent: _Extent) -> None:
    """Delete responses and whole conversations, with all that hangs on them."""
    signals = {"signals": extent.signals, "responses": extent.responses, "upstream": extent.upstream_ids}
    work.delete(
        "feedback_receipts",
        "id IN (SELECT value FROM json_each(:signals))"
        " OR answer_json ->> '$.response_id' IN (SELECT value FROM json_each(:responses))"
        " OR answer_json ->> '$.response_id' IN (SELECT value FROM json_each(:upstream))",
        **signals,
    )
    work.delete("response_feedback", "id IN (SELECT value FROM json_each(:signals))", signals=extent.signals)
    work.delete(
        "response_characteristics",
        "seq IN (SELECT seq FROM responses WHERE id IN (SELECT value FROM json_each(:responses)))",
        responses=extent.responses,
    )
    work.delete("responses", "id IN (SELECT value FROM json_each(:responses))", responses=extent.responses)
    if extent.responses or extent.signals:  # the sums are made anew: nothing has to be taken off them
        work.db.execute("DELETE FROM removed_signals WHERE tenant_id = :tenant_id", {"tenant_id": work.tenant_id})
    work.delete("mined_conversations", "conversation_id IN (SELECT value FROM json_each(:whole))", whole=extent.whole)
    work.delete("model_calls", "true")  # whom an answer quotes is not known; the next run asks again
    work.delete("conversations", "id IN (SELECT value FROM json_each(:whole))", whole=extent.whole)


def _forget_examples(work: _Work, extent: _Extent) -> None:
    """Delete training examples, and the words that only they had from the search index and from classifiers."""
    condition = (
        "user_hash IN (SELECT value FROM json_each(:users)) OR user_hash IN (SELECT value FROM json_each(:hashes))"
        " OR conversation_id IN (SELECT value FROM json_each(:whole))"
    )
    secret = get_tenant(work.db, work.tenant_id).secret
    ids = {"whole": extent.whole, "hashes": [hash_user(secret, name) for name in work.subject.user_ids]}
    inputs = work.db.rows(
        f"SELECT input FROM examples WHERE tenant_id = :tenant_id AND ({condition})", work.values(**ids)
    )
    work.delete("examples", condition, **ids)
    if inputs:
        # The search index marks words as deleted; merged into one piece it holds them no more.
        work.db.execute("INSERT INTO examples_search (examples_search) VALUES ('optimize')")
    # Questions, too: an example that was collected of one may have made room for others since.
    work.rows["nlu_models"] = forget_words(
        work.db, work.tenant_id, [*(row["input"] for row in inputs), *extent.questions]
    )


def _forget_news(work: _Work, lost: Sequence[str], contexts: ForgottenContexts) -> None:
    """Take what names *lost* conversations or quotes entries out of alerts, of what runs told, and of others' marks."""
    work.delete(
        "alerts",
        "detail_json ->> '$.conversation_id' IN (SELECT value FROM json_each(:lost))"
        " OR detail_json ->> '$.context_id' IN (SELECT value FROM json_each(:contexts))",
        lost=lost,
        contexts=contexts.withdrawn,
    )
    named = [*lost, *contexts.withdrawn, *contexts.trimmed]
    runs = work.db.rows(
        """
        SELECT r.id, r.summary_json FROM learning_runs AS r
        WHERE r.tenant_id = :tenant_id
          AND EXISTS (SELECT 1 FROM json_each(:named) AS n WHERE instr(r.summary_json, n.value))
        """,
        work.values(named=named),
    )
    for run in runs:
        summary = {name: _without(value, named) for name, value in json.loads(run["summary_json"]).items()}
        work.db.execute(
            "UPDATE learning_runs SET summary_json = :summary_json WHERE id = :id",
            {"id": run["id"], "summary_json": json.dumps(summary)},
        )
    work.rows["learning_runs"] = len(runs)
    marks = work.db.rows(
        """
        SELECT m.conversation_id, m.note FROM mined_conversations AS m
        WHERE m.tenant_id = :tenant_id
          AND EXISTS (SELECT 1 FROM json_each(:lost) AS n WHERE instr(m.note, n.value))
        """,
        work.values(lost=lost),
    )
    work.db.execute_many(
        """
        UPDATE mined_conversations SET note = :note
        WHERE tenant_id = :tenant_id AND conversation_id = :conversation_id
        """,
        [
            {
                "tenant_id": work.tenant_id,
                "conversation_id": mark["conversation_id"],
                "note": unnamed(mark["note"], lost),
            }
            for mark in marks
        ],
    )


def _without(value: Any, named: Sequence[str]) -> Any:
    """Return a list of lines without those that hold a name; anything else as it is."""
    if not isinstance(value, list):
        return value
    return [line for line in value if unnamed(str(line), named) == str(line)]


def _mine_again(work: _Work, conversation_ids: Sequence[str]) -> None:
    """Have the next run look at conversations anew that lost a part of themselves, or the entry that they supported."""
    values = work.values(ids=conversation_ids) | {"now": iso(work.now_s)}
    work.db.execute(
        """
        DELETE FROM mined_conversations
        WHERE tenant_id = :tenant_id AND conversation_id IN (SELECT value FROM json_each(:ids))
        """,
        values,
    )
    work.db.execute(
        """
        UPDATE conversations SET updated_at = :now,
          user_id = CASE WHEN user_id IN (SELECT value FROM json_each(:users)) THEN '' ELSE user_id END
        WHERE tenant_id = :tenant_id AND id IN (SELECT value FROM json_each(:ids))
        """,
        values,
    )


def _forget_names(work: _Work, extent: _Extent) -> None:
    """Put a word in the place of each name in the audit log: what was done to what stays, not for whom."""
    values = work.values(names=[*work.subject.user_ids, *extent.whole]) | {"forgotten": FORGOTTEN}
    work.db.execute(
        """
        UPDATE audit_log SET object_id = :forgotten
        WHERE tenant_id = :tenant_id AND object_id IN (SELECT value FROM json_each(:names))
        """,
        values,
    )
    rows = work.db.rows(
        """
        SELECT id, detail_json FROM audit_log
        WHERE tenant_id = :tenant_id AND EXISTS (
          SELECT 1 FROM json_tree(detail_json) AS t JOIN json_each(:names) AS n ON n.value = t.value)
        """,
        values,
    )
    names = frozenset((*work.subject.user_ids, *extent.whole))
    for row in rows:
        detail = _renamed(json.loads(row["detail_json"]), names)
        work.db.execute(
            "UPDATE audit_log SET detail_json = :detail_json WHERE id = :id",
            {"id": row["id"], "detail_json": json.dumps(detail)},
        )


def _renamed(value: Any, names: frozenset[str]) -> Any:
    if isinstance(value, dict):
        return {key: _renamed(item, names) for key, item in value.items()}
    if isinstance(value, list):
        return [_renamed(item, names) for item in value]
    return FORGOTTEN if value in names else value


def _audit(work: _Work, forgotten: Forgotten) -> None:
    """Write down that it was done, under a keyed hash: who knows the name can check it, nobody can read it."""
    secret = get_tenant(work.db, work.tenant_id).secret
    is_user = bool(work.subject.user_ids)
    for name in work.subject.user_ids or work.subject.conversation_ids:
        record(
            work.db,
            work.tenant_id,
            actor=work.actor,
            action="users.forget" if is_user else "conversations.forget",
            object_id=hash_user(secret, name),
            detail={
                "rows": dict(forgotten.rows),
                "withdrawn": list(forgotten.withdrawn_contexts),
                "trimmed": list(forgotten.trimmed_contexts),
            },
            now_s=work.now_s,
        )


def scrub(db: Database, *, is_compacted: bool) -> bool:
    """Leave nothing of deleted rows in the files; return whether the write-ahead log is empty now.

    Connections overwrite what they delete (``secure_delete``), so the log is all that may still hold it, and free
    pages of a time before they did: *is_compacted* writes the whole file anew, which takes as long as copying it and
    keeps writers waiting.

    Raises:
        UnavailableError: the database is missing, locked or damaged.
    """
    if is_compacted:
        db.execute("VACUUM")
    row = db.row("PRAGMA wal_checkpoint(TRUNCATE)")
    if row is None:
        raise UnavailableError(f"{db.path}: the write-ahead log cannot be written back")
    return not row[0]
