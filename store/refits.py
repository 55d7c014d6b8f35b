"""Tables ``embedding_refits`` and ``teacher_vectors``. Written by the learner, and by the command that takes one back.

A refit of a tenant is ``collecting`` while its teacher is asked; then it is ``served``, or ``refused`` by its check.
The one that was served before is ``replaced``: one step back. Of all others only the figures are kept, and the tables
that a kept classifier of question types reads.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from store.clock import iso
from store.database import Database, Row
from store.errors import ConflictError
from store.generations import publish
from store.ids import new_id
from store.refit_table import SEPARATOR, RefitTable, refit_name
from store.vectors import decode_vector, encode_vector

Status = Literal["collecting", "served", "refused", "replaced", "withdrawn"]

MAX_QUESTION_CHARS: Final = 500  # longer ones are pastes
READ_PER_TEXT: Final = 5  # records read for each text that is wanted: people ask the same


@dataclass(frozen=True, slots=True)
class RefitRow:
    """One refit; *gain* is in the mean reciprocal rank of what is injected, *gain_low* its 95 % lower bound."""

    id: str
    tenant_id: str
    local_model: str
    teacher: str
    status: Status
    until_seq: int
    n_texts: int
    n_tokens: int
    n_checked: int
    gain: float | None
    gain_low: float | None
    note: str
    prompt_tokens: int
    cost_usd: float
    created_at: str
    finished_at: str | None


@dataclass(frozen=True, slots=True)
class Checked:
    """What a refit was made of, and what its check found."""

    n_texts: int
    n_tokens: int
    n_checked: int
    gain: float | None
    gain_low: float | None
    note: str


def asked_questions(db: Database, tenant_id: str, *, until_seq: int, limit: int) -> list[tuple[str, str]]:
    """Return (question, voice) of the newest good replies up to *until_seq*; a voice is a user, else a conversation."""
    rows = db.rows(
        """
        SELECT question, CASE WHEN user_id <> '' THEN user_id ELSE conversation_id END AS voice FROM responses
        WHERE tenant_id = :tenant_id AND seq <= :until_seq AND outcome = 'ok'
          AND length(question) BETWEEN 1 AND :longest
        ORDER BY seq DESC LIMIT :limit
        """,
        {"tenant_id": tenant_id, "until_seq": until_seq, "longest": MAX_QUESTION_CHARS, "limit": limit * READ_PER_TEXT},
    )
    return [(row["question"], row["voice"]) for row in rows]


def newest_seq(db: Database, tenant_id: str) -> int:
    """Return the number of the tenant's newest record; 0 without any."""
    found: int | None = db.value(
        "SELECT max(seq) FROM responses WHERE tenant_id = :tenant_id", {"tenant_id": tenant_id}
    )
    return found or 0


def list_refits(db: Database, tenant_id: str, *, limit: int = 20) -> list[RefitRow]:
    """Return the tenant's refits, newest first."""
    rows = db.rows(
        """
        SELECT id, tenant_id, local_model, teacher, status, until_seq, n_texts, n_tokens, n_checked, gain, gain_low,
          note, prompt_tokens, cost_usd, created_at, finished_at
        FROM embedding_refits WHERE tenant_id = :tenant_id ORDER BY created_at DESC, id DESC LIMIT :limit
        """,
        {"tenant_id": tenant_id, "limit": limit},
    )
    return [_refit(row) for row in rows]


def _refit(row: Row) -> RefitRow:
    return RefitRow(**dict(row))


def begin_refit(db: Database, tenant_id: str, *, local_model: str, teacher: str, now_s: float) -> RefitRow:
    """Return the refit that is collecting for these models, a new one if there is none; another's is given up."""
    with db.transaction():
        known = next((one for one in list_refits(db, tenant_id) if one.status == "collecting"), None)
        if known is not None and (known.local_model, known.teacher) == (local_model, teacher):
            return known
        if known is not None:
            _finish(db, known, "refused", Checked(0, 0, 0, None, None, "another model was configured"), now_s=now_s)
        refit_id = new_id("refit", now_s)
        db.execute(
            """
            INSERT INTO embedding_refits (id, tenant_id, local_model, teacher, status, until_seq, created_at)
            VALUES (:id, :tenant_id, :local_model, :teacher, 'collecting', :until_seq, :now)
            """,
            {
                "id": refit_id,
                "tenant_id": tenant_id,
                "local_model": local_model,
                "teacher": teacher,
                "until_seq": newest_seq(db, tenant_id),
                "now": iso(now_s),
            },
        )
    return next(one for one in list_refits(db, tenant_id) if one.id == refit_id)


def renew_refit(db: Database, refit: RefitRow, *, now_s: float) -> None:
    """Let a refit that is still collecting reach up to the newest record; what was paid for stays."""
    with db.transaction():
        db.execute(
            """
            UPDATE embedding_refits SET until_seq = :until_seq, created_at = :now
            WHERE id = :id AND status = 'collecting'
            """,
            {"id": refit.id, "until_seq": newest_seq(db, refit.tenant_id), "now": iso(now_s)},
        )


def text_key(text: str) -> bytes:
    """Return what a text is known by among the teacher's vectors."""
    return hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=16).digest()


def teacher_vectors(db: Database, tenant_id: str, teacher: str) -> Mapping[bytes, NDArray[np.float32]]:
    """Return what was paid for so far, by the texts' keys."""
    rows = db.rows(
        "SELECT text_key, embedding FROM teacher_vectors WHERE tenant_id = :tenant_id AND teacher = :teacher",
        {"tenant_id": tenant_id, "teacher": teacher},
    )
    return {row["text_key"]: decode_vector(row["embedding"]) for row in rows}


def put_teacher_vectors(  # what was bought, and its price
    db: Database,
    refit: RefitRow,
    texts: Sequence[str],
    vectors: NDArray[np.float32],
    *,
    prompt_tokens: int,
    cost_usd: float,
) -> None:
    """Write the vectors of *texts* and what they cost, together: a process that dies then has not paid for nothing."""
    with db.transaction():
        for text, vector in zip(texts, vectors, strict=True):
            db.execute(
                """
                INSERT OR REPLACE INTO teacher_vectors (tenant_id, teacher, text_key, embedding)
                VALUES (:tenant_id, :teacher, :text_key, :embedding)
                """,
                {
                    "tenant_id": refit.tenant_id,
                    "teacher": refit.teacher,
                    "text_key": text_key(text),
                    "embedding": encode_vector(vector),
                },
            )
        db.execute(
            """
            UPDATE embedding_refits SET prompt_tokens = prompt_tokens + :prompt_tokens, cost_usd = cost_usd + :cost_usd
            WHERE id = :id
            """,
            {"id": refit.id, "prompt_tokens": prompt_tokens, "cost_usd": cost_usd},
        )


def forget_teacher_vectors(db: Database, tenant_id: str) -> int:
    """Delete what was asked of teachers, and return how many: they stand for what people wrote."""
    with db.transaction():
        return db.execute("DELETE FROM teacher_vectors WHERE tenant_id = :tenant_id", {"tenant_id": tenant_id})


def refuse_refit(db: Database, refit: RefitRow, checked: Checked, *, now_s: float) -> None:
    """Keep the figures of a refit whose check was not won."""
    with db.transaction():
        _finish(db, refit, "refused", checked, now_s=now_s)
        forget_teacher_vectors(db, refit.tenant_id)


def serve_refit(db: Database, refit: RefitRow, table: RefitTable, checked: Checked, *, now_s: float) -> int:
    """Serve a refit from the next generation on, whose number is returned; the one before can be gone back to."""
    with db.transaction():
        _clear(db, refit.tenant_id, "replaced", "withdrawn")
        _clear(db, refit.tenant_id, "served", "replaced")
        _finish(db, refit, "served", checked, table=table, now_s=now_s)
        forget_teacher_vectors(db, refit.tenant_id)
        reason = f"embedding: {refit.id} is served; reciprocal rank {checked.gain:+.3f} on {checked.n_checked} entries"
        return publish(db, refit.tenant_id, plan=None, actor="learner", reason=reason, now_s=now_s)


def step_back(db: Database, tenant_id: str, *, actor: str, now_s: float) -> RefitRow | None:
    """Withdraw the served refit for the one before it, which is returned; None: the local vectors as they come.

    Raises:
        ConflictError: no refit is served.
    """
    with db.transaction():
        refits = list_refits(db, tenant_id, limit=1000)
        if not any(refit.status == "served" for refit in refits):
            raise ConflictError(f"no refit of tenant {tenant_id!r} is served")
        before = next((refit for refit in refits if refit.status == "replaced"), None)
        _clear(db, tenant_id, "served", "withdrawn")
        if before is not None:
            _set_status(db, tenant_id, "replaced", "served")
        reason = f"embedding: back to {before.id if before else 'the local vectors'}"
        publish(db, tenant_id, plan=None, actor=actor, reason=reason, now_s=now_s)
    return before


def has_refits(db: Database, tenant_id: str) -> bool:
    """Return whether any refit is served to the tenant, of whatever model."""
    sql = "SELECT 1 FROM embedding_refits WHERE tenant_id = :tenant_id AND status = 'served'"
    return db.value(sql, {"tenant_id": tenant_id}) is not None


def served_refit_name(db: Database, tenant_id: str, local_model: str) -> str | None:
    """Return the name of the refit of *local_model* that is served to the tenant; None: there is none."""
    refit_id = db.value(
        """
        SELECT id FROM embedding_refits
        WHERE tenant_id = :tenant_id AND status = 'served' AND local_model = :local_model
        """,
        {"tenant_id": tenant_id, "local_model": local_model},
    )
    return None if refit_id is None else refit_name(local_model, refit_id)


def load_refit(db: Database, tenant_id: str, local_model: str) -> RefitTable | None:
    """Return the refit of *local_model* that is served to the tenant; None: there is none."""
    row = db.row(
        """
        SELECT id, token_ids, offsets FROM embedding_refits
        WHERE tenant_id = :tenant_id AND status = 'served' AND local_model = :local_model
        """,
        {"tenant_id": tenant_id, "local_model": local_model},
    )
    if row is None:
        return None
    return RefitTable.decode(refit_name(local_model, row["id"]), row["token_ids"], row["offsets"])


def load_named_refit(db: Database, tenant_id: str, name: str) -> RefitTable | None:
    """Return the tenant's refit whose vectors have this *name*, served or not; None: its table is not kept."""
    local_model, _, refit_id = name.rpartition(SEPARATOR)
    row = db.row(
        """
        SELECT token_ids, offsets FROM embedding_refits
        WHERE id = :id AND tenant_id = :tenant_id AND local_model = :local_model AND token_ids IS NOT NULL
        """,
        {"id": refit_id, "tenant_id": tenant_id, "local_model": local_model},
    )
    return None if row is None else RefitTable.decode(name, row["token_ids"], row["offsets"])


def kept_models(db: Database, tenant_id: str) -> Iterable[str]:
    """Return the names of the refits whose vectors of entries are still of use: served, or one step back."""
    rows = db.rows(
        """
        SELECT id, local_model FROM embedding_refits
        WHERE tenant_id = :tenant_id AND status IN ('served', 'replaced')
        """,
        {"tenant_id": tenant_id},
    )
    return [refit_name(row["local_model"], row["id"]) for row in rows]


def _finish(
    db: Database, refit: RefitRow, status: Status, checked: Checked, *, table: RefitTable | None = None, now_s: float
) -> None:
    columns = table.encode() if table is not None else (None, None)
    n_changed = db.execute(
        """
        UPDATE embedding_refits SET status = :status, n_texts = :n_texts, n_tokens = :n_tokens, n_checked = :n_checked,
          gain = :gain, gain_low = :gain_low, note = :note, token_ids = :token_ids, offsets = :offsets,
          finished_at = :now
        WHERE id = :id AND status = 'collecting'
        """,
        {
            "id": refit.id,
            "status": status,
            "n_texts": checked.n_texts,
            "n_tokens": checked.n_tokens,
            "n_checked": checked.n_checked,
            "gain": checked.gain,
            "gain_low": checked.gain_low,
            "note": checked.note,
            "token_ids": columns[0],
            "offsets": columns[1],
            "now": iso(now_s),
        },
    )
    if not n_changed:
        raise ConflictError(f"refit {refit.id!r} was finished meanwhile")


def _clear(db: Database, tenant_id: str, status: Status, new_status: Status) -> None:
    """Move refits on; those that nobody can go back to lose their tables, but for what a classifier reads."""
    _set_status(db, tenant_id, status, new_status)
    if new_status == "withdrawn":
        db.execute(
            """
            UPDATE embedding_refits SET token_ids = NULL, offsets = NULL
            WHERE tenant_id = :tenant_id AND status = 'withdrawn' AND token_ids IS NOT NULL
              AND local_model || :separator || id NOT IN (
                SELECT embedding_model FROM nlu_models WHERE tenant_id = :tenant_id AND withdrawn_at IS NULL)
            """,
            {"tenant_id": tenant_id, "separator": SEPARATOR},
        )


def _set_status(db: Database, tenant_id: str, status: Status, new_status: Status) -> None:
    db.execute(
        "UPDATE embedding_refits SET status = :new_status WHERE tenant_id = :tenant_id AND status = :status",
        {"tenant_id": tenant_id, "status": status, "new_status": new_status},
    )
