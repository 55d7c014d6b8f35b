"""Table ``removed_signals``: signals that were taken back or replaced since the pattern learner counted them.

Written by a trigger, whoever deletes a signal; emptied by the learner, which takes them off its sums.
"""

from store.database import Database


def newest_removal(db: Database, tenant_id: str, *, after: int = 0) -> int:
    """Return the ``seq`` of the tenant's newest removed signal; *after* when none came after it."""
    sql = "SELECT max(seq) FROM removed_signals WHERE tenant_id = :t AND seq > :a"
    found = db.value(sql, {"t": tenant_id, "a": after})
    return after if found is None else int(found)


def forget_removals(db: Database, tenant_id: str, *, until: int) -> None:
    """Drop what was taken off; call it inside the transaction that saves the sums."""
    with db.transaction():
        db.execute(
            "DELETE FROM removed_signals WHERE tenant_id = :tenant_id AND seq <= :until",
            {"tenant_id": tenant_id, "until": until},
        )
