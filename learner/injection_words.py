"""Why a reply was the way it was: what was in play around one response, in plain words; pure."""

from collections.abc import Sequence
from typing import Final

from store.config import Config
from store.exchanges import Asked, InjectionRow

SHOWN_CHARS: Final = 300  # of a question


def why(asked: Asked, config: Config) -> list[str]:
    """Return the lines that explain one response, the most general first."""
    exchange = asked.exchange
    lines = [
        f"Response {exchange.response_id} of {exchange.created_at}, model {exchange.model or '(none named)'}",
        f"Outcome: {exchange.outcome} ({exchange.status}) after {exchange.latency_ms:.0f} ms",
        f"Conversation {asked.conversation_id}, {_asker(asked)}; generation {exchange.generation} was served",
        f"Question: {_cut(asked.question)}",
        _question_type(asked),
        _tokens(asked),
    ]
    patterns = [one for one in exchange.injections if one.kind == "pattern"]
    contexts = [one for one in exchange.injections if one.kind == "context"]
    lines += ["", "Patterns", *_patterns(patterns, exchange.is_holdout, config.patterns.holdout)]
    lines += ["", "Knowledge", *_contexts(contexts)]
    lines += ["", "What came back", *_signals(asked)]
    return lines


def treatment(item: InjectionRow, *, is_holdout: bool = False) -> str:
    """Return what the lot decided about one item, and how likely that was.

    >>> treatment(InjectionRow("pattern", "pat_1", "shape", 0.45, True, None, 12, "Use a table."))
    'put in at the end of the system text; the lot puts it into 45 % of such conversations'
    >>> treatment(InjectionRow("context", "ctx_1", "", 0.95, False, 0.7, 80, "How do I pay?"))
    'left out by lot, to measure what it does; the lot puts it into 95 % of such conversations'
    """
    place = "at the end of the system text" if item.kind == "pattern" else "after the text of the last user message"
    done = f"put in {place}" if item.treated else "left out by lot, to measure what it does"
    if is_holdout and not item.treated:
        done = "left out: the holdout gets no patterns"
    return f"{done}; the lot puts it into {item.propensity:.0%} of such conversations".replace("%", " %")


def _asker(asked: Asked) -> str:
    parts = [f"user {asked.user_id}" if asked.user_id else "user unknown"]
    named = (("segment", asked.segment), ("data source", asked.data_source), ("template", asked.prompt_template))
    return ", ".join([*parts, *(f"{name} {value}" for name, value in named if value)])


def _question_type(asked: Asked) -> str:
    kind, confidence = asked.exchange.question_type, asked.question_type_confidence
    if confidence is None:
        return f"Question type: {kind}, as the app said" if kind != "unknown" else "Question type: unknown"
    return f"Question type: {kind}, by the classifier with confidence {confidence:.2f}"


def _tokens(asked: Asked) -> str:
    counted = ""
    if asked.prompt_tokens is not None:
        counted = f" of {asked.prompt_tokens} prompt tokens, {asked.cached_tokens or 0} of them cached"
    return f"Put in: {asked.exchange.injected_tokens} tokens{counted}"


def _patterns(items: Sequence[InjectionRow], is_holdout: bool, holdout: float) -> list[str]:
    lines = []
    if is_holdout:
        lines.append(
            f"  This conversation is in the holdout: {holdout:.0%} of conversations, by lot, get no patterns, so that "
            "what learning is worth can be told.".replace("%", " %", 1)
        )
    if not items:
        lines.append("  None was in play: no served pattern fits this request.")
    for item in items:
        lines.append(f"  {item.item_id} ({item.dimension}, {item.tokens} tokens): {item.text or '(deleted)'}")
        lines.append(f"    {treatment(item, is_holdout=is_holdout)}")
    return lines


def _contexts(items: Sequence[InjectionRow]) -> list[str]:
    if not items:
        return ["  None was in play: no approved entry is similar enough to the question."]
    lines = []
    for item in items:
        similarity = "" if item.similarity is None else f", similarity {item.similarity:.2f}"
        lines.append(f"  {item.item_id} ({item.tokens} tokens{similarity}): {item.text or '(deleted)'}")
        lines.append(f"    {treatment(item)}")
    return lines


def _signals(asked: Asked) -> list[str]:
    if not asked.exchange.signals:
        return ["  No signal yet."]
    lines = []
    for signal in asked.exchange.signals:
        source = ", found in the traffic" if signal.source == "traffic" else ""
        said = signal.correction or signal.comment
        quoted = f": {_cut(said)}" if said else ""
        who = signal.user_id or "an unknown user"
        lines.append(f"  {signal.signal} ({signal.weight:+.1f}) of {who}, {signal.created_at}{source}{quoted}")
    return lines


def _cut(text: str) -> str:
    one_line = " ".join(text.split())
    return one_line if len(one_line) <= SHOWN_CHARS else f"{one_line[:SHOWN_CHARS]} ..."
