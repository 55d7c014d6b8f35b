"""The instruction that asks for a characteristic: from a template, or from the configured model, checked.

One rule, one line, an imperative. Whatever fails the check is replaced by the template.
"""

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from learner.errors import ModelError
from learner.models import Message, Model
from store.blocks import clean_text, pattern_line
from store.tokens import TokenCounter
from store.vocabulary import PatternType

log = logging.getLogger(__name__)

TEMPLATES: Final = {
    ("response_format", "table"): "Present the answer as a Markdown table.",
    ("response_format", "list"): "Present the answer as a list of short bullet points.",
    ("response_format", "code"): "Give the answer as a code block, with a sentence of explanation.",
    ("response_format", "prose"): "Answer in plain sentences, without headings or other markup.",
    ("response_format", "json"): "Give the answer as one valid JSON object.",
    ("length", "short"): "Keep the answer short: a few sentences at most.",
    ("length", "medium"): "Answer in one to three paragraphs.",
    ("length", "long"): "Answer in full detail and cover every part of the question.",
    ("query", "cte"): "Write SQL with common table expressions (WITH) instead of nested queries.",
    ("query", "subquery"): "Write SQL with subqueries where they keep a query in one statement.",
    ("query", "join"): "Write SQL with explicit JOIN clauses.",
    ("strategy", "summary_first"): "Begin with a summary of one sentence, then give the details.",
    ("strategy", "step_by_step"): "Explain step by step, as a numbered list.",
    ("strategy", "example"): "Illustrate the answer with a concrete example.",
    ("follow_up", "question"): "End by asking whether one specific further step would help.",
    ("follow_up", "suggestions"): "End with two or three next steps that the user could take.",
    ("follow_up", "none"): "Stop when the answer is complete: no closing questions or suggestions.",
    ("visualization", "line"): "Show developments over time as a line chart.",
    ("visualization", "bar"): "Show comparisons of quantities as a bar chart.",
    ("visualization", "pie"): "Show parts of a whole as a pie chart.",
    ("visualization", "scatter"): "Show how two quantities relate as a scatter plot.",
    ("visualization", "diagram"): "Show processes and structures as a diagram.",
}
OPEN_TEMPLATES: Final = {  # for values that come from the tenant's records
    "tools": "Use the tool {value} whenever it can help to answer.",
    "threshold": "Point out changes only when they are larger than {value} percent.",
    "terminology": 'Use the term "{value}" where it fits.',
}

_BANNED: Final = re.compile(
    r"""\b(?:ignore|disregard|forget|override)\b.{0,40}\b(?:instruction|prompt|rule|above|previous)
    | \b(?:system|developer)\s+prompt
    | \b(?:thumbs?[\ -]?up|upvote|rate\s+(?:this|the|your)|rating|five\s+stars?|feedback|vote)\b
    | \b(?:flatter|compliment|praise|great\ question|brilliant)
    | \b(?:urgent|urgently|act\ now|hurry|immediately|limited\ time)\b
    | https?:// | www\. | [\w.+-]+@[\w-]+\.\w+ | \+?\d[\d\ ()./-]{7,}\d
    | <[/\w]
    """,
    re.IGNORECASE | re.VERBOSE,
)
_VALUE: Final = re.compile(r"[\w.:-]{1,64}")


@dataclass(frozen=True, slots=True)
class Wording:
    """A rule and its tokens as a line of the block."""

    rule: str
    tokens: int


def template(dimension: str, value: str) -> str | None:
    """Return the instruction that asks for *value*, or None when there is none for it.

    >>> template("response_format", "table")
    'Present the answer as a Markdown table.'
    """
    if (dimension, value) in TEMPLATES:
        return TEMPLATES[dimension, value]
    # A value that is not a plain word could carry an order of its own (a tool's name comes from the app).
    if dimension in OPEN_TEMPLATES and _VALUE.fullmatch(value):
        return OPEN_TEMPLATES[dimension].format(value=value)
    return None


def word(
    *,
    type: PatternType,  # noqa: A002
    dimension: str,
    value: str,
    question_type: str | None,
    tokens: TokenCounter,
    max_tokens: int,
    model: Model | None,
) -> Wording | None:
    """Return the rule for a characteristic, or None when no instruction can ask for it.

    The *model*'s wording is used when it passes ``objection``; else, or when it cannot be reached, the template.
    """
    plain = template(dimension, value)
    if plain is None or objection(plain, tokens, max_tokens) is not None:
        return None
    rule = plain if model is None else _worded(model, _request(type, question_type, plain), plain, tokens, max_tokens)
    return Wording(rule, tokens.count(pattern_line(rule)))


def objection(rule: str, tokens: TokenCounter, max_tokens: int) -> str | None:
    """Return why *rule* must not be used, or None: one line, short, no orders against others, no banned class.

    Banned are flattery, asking for votes, urgency, links and personal data. Source: FINDINGS, section 4.
    """
    if not rule or "\n" in rule or rule != clean_text(rule):
        return "not one plain line"
    if tokens.count(pattern_line(rule)) > max_tokens:
        return f"more than {max_tokens} tokens"
    match = _BANNED.search(rule)
    return f"contains {match[0]!r}" if match else None


def _request(type: PatternType, question_type: str | None, plain: str) -> list[Message]:  # noqa: A002
    where = f" Questions are of the type {question_type!r}." if question_type else ""
    return [
        {
            "role": "system",
            "content": "You word instructions for an assistant. Answer with one imperative sentence of at most 30 "
            "words and nothing else. Keep the meaning. No praise, no urgency, no mention of ratings.",
        },
        {"role": "user", "content": f"Kind of instruction: {type}.{where}\nInstruction: {plain}"},
    ]


def _worded(model: Model, request: Sequence[Message], plain: str, tokens: TokenCounter, max_tokens: int) -> str:
    try:
        rule = model.complete(request).text.strip().strip('"').strip()
    except ModelError as exc:
        log.warning("wording falls back to its template: %s", exc)
        return plain
    reason = objection(rule, tokens, max_tokens)
    if reason is not None:
        log.warning("wording falls back to its template: the model's %s", reason)
        return plain
    return rule
