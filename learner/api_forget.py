"""What a person, or law, wants gone: a user, or one conversation, with what was learned from them alone."""

from learner.api_request import Call
from learner.forgetting import forget_conversation, forget_user
from store.forgetting import Forgotten


def user(call: Call) -> Forgotten:
    """Forget a user by the app's name for them; ``?dry_run=true`` tells what would go."""
    return forget_user(
        call.db,
        call.services.config,
        call.tenant_id,
        call.services.author,
        user=call.path["user"],
        actor=call.actor,
        now_s=call.now_s,
        is_dry_run=_is_dry_run(call),
    )


def conversation(call: Call) -> Forgotten:
    """Forget one conversation; ``?dry_run=true`` tells what would go."""
    return forget_conversation(
        call.db,
        call.services.config,
        call.tenant_id,
        call.services.author,
        conversation_id=call.path["id"],
        actor=call.actor,
        now_s=call.now_s,
        is_dry_run=_is_dry_run(call),
    )


def _is_dry_run(call: Call) -> bool:
    return call.choice("dry_run", ("true", "false")) == "true"
