"""The person who reviews the demo's knowledge: likes plain answers."""

from store.contexts import ContextRow


def answers_its_question(context: ContextRow) -> float:
    """Return the share of the answer's words that the question has too."""
    asked, answered = (set(text.lower().replace("?", "").split()) for text in (context.questions[0], context.answer))
    return len(asked & answered) / max(len(answered), 1)


def by_plainness(context: ContextRow) -> tuple[float, int, str]:
    """Return what sorts entries in the order in which the reviewer would take them."""
    return -answers_its_question(context), -context.n_users, context.id
