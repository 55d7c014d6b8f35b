"""Generations: what was served when and why, and the way back to one of them."""

from typing import Any

from learner.api_request import Call, flag, generation_number, known_fields, page, text
from store.generations import list_generations
from store.patterns import PatternRow
from store.reverting import revert, step_back


def generations(call: Call) -> dict[str, Any]:
    """Return one page of the tenant's generations, newest first."""
    return page(list_generations(call.db, call.tenant_id, limit=call.limit, cursor=call.cursor))


def preview(call: Call) -> dict[str, Any]:
    """Return what going back to a generation would change, and why what it would bring back had been taken out."""
    step = step_back(call.db, call.tenant_id, generation_number(call.path["number"]), now_s=call.now_s)
    return {
        "restored": [{**_named(after, row), "removal": step.removals.get(row.id)} for row, after in step.restored],
        "retired": [_named(after, row) for row, after in step.retired],
        "kept": [_named(row, row) for row in step.kept],
        "harmful": step.harmful,
    }


def _named(row: PatternRow, before: PatternRow) -> dict[str, Any]:
    return {"id": row.id, "rule": row.rule, "from_state": before.state, "to_state": row.state}


def revert_to(call: Call) -> Any:
    """Serve again what a generation served; what was taken out for harm since comes back only with ``force``."""
    known_fields(call.body, ("reason", "force"))
    return revert(
        call.db,
        call.tenant_id,
        generation_number(call.path["number"]),
        actor=call.actor,
        reason=text(call.body, "reason") or "by a person",
        now_s=call.now_s,
        is_forced=bool(flag(call.body, "force")),
    )
