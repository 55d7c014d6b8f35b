"""Generations: what was served when and why, and the way back to one of them."""

from typing import Any

from learner.api_request import Call, generation_number, known_fields, page, text
from store.generations import list_generations
from store.reverting import revert


def generations(call: Call) -> dict[str, Any]:
    """Return one page of the tenant's generations, newest first."""
    return page(list_generations(call.db, call.tenant_id, limit=call.limit, cursor=call.cursor))


def revert_to(call: Call) -> Any:
    """Serve again what a generation served."""
    known_fields(call.body, ("reason",))
    return revert(
        call.db,
        call.tenant_id,
        generation_number(call.path["number"]),
        actor=call.actor,
        reason=text(call.body, "reason") or "by a person",
        now_s=call.now_s,
    )
