"""The instruction that asks for a characteristic: from a template, or from the configured model, checked.

One rule, one line, an imperative. Whatever fails the check is replaced by the template.
"""

import logging
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from learner.errors import ModelError
from learner.models import Message, Model
from learner.patterns.rule_checks import objection
from learner.patterns.rule_words import strange_word
from store.blocks import pattern_line
from store.tokens import TokenCounter
from store.vocabulary import AVOID, PatternType

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
    ("query", "aggregation"): "Write SQL that aggregates (GROUP BY, COUNT, SUM) instead of listing rows.",
    ("query", "window"): "Write SQL with window functions (OVER) for ranks and running totals.",
    ("query", "limit"): "Write SQL with a LIMIT on the number of rows.",
    ("query", "select_all"): "Write SQL that selects all columns (SELECT *).",
    ("strategy", "summary_first"): "Begin with a summary of one sentence, then give the details.",
    ("strategy", "step_by_step"): "Explain step by step, as a numbered list.",
    ("strategy", "example"): "Illustrate the answer with a concrete example.",
    ("strategy", "clarify"): "Ask one clarifying question first when the request can be understood in several ways.",
    ("strategy", "sources"): "Name the sources that the answer rests on.",
    ("strategy", "caveats"): "Add a note on assumptions and limits of the answer.",
    ("follow_up", "question"): "End by asking whether one specific further step would help.",
    ("follow_up", "suggestions"): "End with two or three next steps that the user could take.",
    ("follow_up", "offer"): "Close with one short offer of further help.",
    ("follow_up", "none"): "Stop when the answer is complete: no closing questions or suggestions.",
    ("visualization", "line"): "Show developments over time as a line chart.",
    ("visualization", "bar"): "Show comparisons of quantities as a bar chart.",
    ("visualization", "pie"): "Show parts of a whole as a pie chart.",
    ("visualization", "scatter"): "Show how two quantities relate as a scatter plot.",
    ("visualization", "diagram"): "Show processes and structures as a diagram.",
    ("severity", "low"): "Report findings of every severity, those of low severity too.",
    ("severity", "medium"): "Report only findings of at least medium severity.",
    ("severity", "high"): "Report only findings of high severity.",
}
AVOIDING: Final = {
    ("response_format", "table"): "Do not use tables unless the user asks for one.",
    ("response_format", "list"): "Do not use bullet points or lists unless the user asks for them.",
    ("response_format", "code"): "Do not use code blocks unless the user asks for code.",
    ("response_format", "prose"): "Do not answer in plain prose alone: structure the answer visibly.",
    ("response_format", "json"): "Do not answer in JSON unless the user asks for it.",
    ("length", "short"): "Do not answer in only a few short sentences: explain.",
    ("length", "medium"): "Avoid answers of medium length: be either brief or thorough.",
    ("length", "long"): "Avoid long answers: leave out what was not asked for.",
    ("query", "cte"): "Do not use common table expressions (WITH) in SQL unless a query needs one.",
    ("query", "subquery"): "Do not nest subqueries in SQL where another form does the same.",
    ("query", "join"): "Avoid JOIN clauses in SQL unless the question needs several tables.",
    ("query", "aggregation"): "Do not aggregate rows in SQL (GROUP BY) unless totals were asked for.",
    ("query", "window"): "Avoid window functions (OVER) in SQL unless nothing simpler does it.",
    ("query", "limit"): "Do not add a LIMIT to SQL unless the user asks for one.",
    ("query", "select_all"): "Do not write SELECT * in SQL: name the columns.",
    ("strategy", "summary_first"): "Do not begin with a summary: answer directly.",
    ("strategy", "step_by_step"): "Do not explain step by step unless the user asks how to do something.",
    ("strategy", "example"): "Do not add examples unless the user asks for one.",
    ("strategy", "clarify"): "Do not ask clarifying questions when a reasonable answer is possible.",
    ("strategy", "sources"): "Do not list sources unless the user asks for them.",
    ("strategy", "caveats"): "Leave out notes and caveats that do not change the answer.",
    ("follow_up", "question"): "Do not end with a question.",
    ("follow_up", "suggestions"): "Do not suggest next steps at the end.",
    ("follow_up", "offer"): "Do not close with an offer of further help.",
    ("follow_up", "none"): "Do not just stop at the end of the answer: lead on to what could come next.",
    ("visualization", "line"): "Do not show line charts unless the user asks for one.",
    ("visualization", "bar"): "Do not show bar charts unless the user asks for one.",
    ("visualization", "pie"): "Do not show pie charts unless the user asks for one.",
    ("visualization", "scatter"): "Do not show scatter plots unless the user asks for one.",
    ("visualization", "diagram"): "Do not draw diagrams unless the user asks for one.",
    ("severity", "low"): "Do not report findings of low severity.",
    ("severity", "medium"): "Do not report findings of medium severity.",
    ("severity", "high"): "Do not limit a report to findings of high severity.",
}
OPEN_TEMPLATES: Final = {  # for values that come from the tenant's records
    "tools": "Use the tool {value} whenever it can help to answer.",
    "threshold": "Point out changes only when they are larger than {value} percent.",
    "min_count": "Point out only what happened at least {value} times.",
    "terminology": 'Use the term "{value}" where it fits.',
}
OPEN_AVOIDING: Final = {
    "tools": "Avoid calling the tool {value} unless nothing else answers.",
    "threshold": "Do not hold back changes only because they are smaller than {value} percent.",
    "min_count": "Do not hold something back only because it happened fewer than {value} times.",
    "terminology": 'Avoid the term "{value}": say it in ordinary words.',
}

# What a wording must still name, so that it asks for the same as its template: by dimension and value, else dimension.
_MEANING: Final = {
    ("response_format", "table"): r"\btabl|\btabular",
    ("response_format", "list"): r"\blist|\bbullet",
    ("response_format", "code"): r"\bcode",
    ("response_format", "prose"): r"\bprose\b|\bsentence|\bparagraph|\brunning text|\bplain text",
    ("response_format", "json"): r"\bjson\b",
    ("length", "short"): r"\bshort|\bbrief|\bconcise|\bterse|\bat most\b|\bfew\b",
    ("length", "medium"): r"\bparagraph|\bmedium\b|\bmoderate",
    ("length", "long"): r"\blong|\bdetail|\bthorough|\bfull|\bcomprehensive|\bdepth",
    ("query", "cte"): r"\bctes?\b|\bcommon table|\bwith\b",
    ("query", "subquery"): r"\bsub-?quer|\bnest",
    ("query", "join"): r"\bjoin",
    ("query", "aggregation"): r"\baggregat|\bgroup",
    ("query", "window"): r"\bwindow",
    ("query", "limit"): r"\blimit",
    ("query", "select_all"): r"\bselect \*|\ball columns|\bcolumns\b",
    ("strategy", "summary_first"): r"\bsummar|\bbottom line|\bkey point|\btakeaway",
    ("strategy", "step_by_step"): r"\bstep",
    ("strategy", "example"): r"\bexample|\billustrat",
    ("strategy", "clarify"): r"\bclarif|\bquestion",
    ("strategy", "sources"): r"\bsource|\bcit|\breference",
    ("strategy", "caveats"): r"\bcaveat|\bassum|\blimit|\bnote",
    ("follow_up", "question"): r"\bquestion|\bask",
    ("follow_up", "suggestions"): r"\bsuggest|\bnext step|\bfollow-up",
    ("follow_up", "offer"): r"\boffer",
    ("follow_up", "none"): r"\bstop|\bquestion|\bsuggest|\bend\b|\bclos|\bfollow-?up",
    ("visualization", "line"): r"\bline\b",
    ("visualization", "bar"): r"\bbar\b",
    ("visualization", "pie"): r"\bpie\b",
    ("visualization", "scatter"): r"\bscatter",
    ("visualization", "diagram"): r"\bdiagram|\bflow ?chart",
    ("severity", "low"): r"\blow\b|\bevery severity|\ball severit",
    ("severity", "medium"): r"\bmedium\b",
    ("severity", "high"): r"\bhigh\b",
}
_NEGATION: Final = re.compile(
    r"\b(?:not|no|never|without|avoid\w*|leave out|omit\w*|skip\w*|refrain|unless"
    r"|rather than|instead of|only when|only\b.{1,40}\b(?:when|if)|leave\b.{1,40}\bout|exclude|minimi[sz]e|don't)\b",
    re.IGNORECASE,
)
_FIRST_WORDS_OF_NO_ORDER: Final = re.compile(
    r"(?:the|a|an|this|that|these|it|i|you|we|they|he|she|sure|here|okay|ok|yes|as|there|my|your|users?)\b",
    re.IGNORECASE,
)
MAX_TRIES: Final = 2  # of the model for one rule: the second is told what was wrong with the first
_VALUE: Final = re.compile(r"[\w.:-]{1,64}")


@dataclass(frozen=True, slots=True)
class Wording:
    """A rule and its tokens as a line of the block."""

    rule: str
    tokens: int
    rejections: tuple[str, ...] = ()  # why each wording of the model was not used


def template(dimension: str, value: str) -> str | None:
    """Return the instruction that asks for *value*, or for a reply without it; None when there is none.

    >>> template("response_format", "table"), template("response_format", "avoid:table")
    ('Present the answer as a Markdown table.', 'Do not use tables unless the user asks for one.')
    """
    wanted = value.removeprefix(AVOID)
    closed, open_ = (TEMPLATES, OPEN_TEMPLATES) if wanted == value else (AVOIDING, OPEN_AVOIDING)
    if (dimension, wanted) in closed:
        return closed[dimension, wanted]
    # A value that is not a plain word could carry an order of its own (a tool's name comes from the app).
    if dimension in open_ and _VALUE.fullmatch(wanted) and not wanted.startswith(AVOID):
        return open_[dimension].format(value=wanted)
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
    names: Collection[str] = (),
) -> Wording | None:
    """Return the rule for a characteristic, or None when no instruction can ask for it.

    The *model*'s wording is used when it passes ``objection`` and still means the same, after at most one retry; else,
    or when the model cannot be reached, the template. *names* are of people, and not to be told.
    """
    plain = template(dimension, value)
    if plain is None or objection(plain, tokens, max_tokens) is not None:
        return None
    if model is None:
        return Wording(plain, tokens.count(pattern_line(plain)))
    request = _request(type, question_type, plain)
    rejections: list[str] = []
    for _ in range(MAX_TRIES):
        try:
            text = model.complete(request).text.strip()
        except ModelError as exc:
            log.warning("wording falls back to its template: %s", exc)
            break
        rule = text[1:-1].strip() if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'" else text
        reason = (
            objection(rule, tokens, max_tokens, names)
            or _misses(rule, dimension, value, question_type)
            or _adds(rule, plain, value, question_type)
        )
        if reason is None:
            return Wording(rule, tokens.count(pattern_line(rule)), tuple(rejections))
        log.warning("a wording for %s %s is rejected: %s", dimension, value, reason)
        rejections.append(reason)
        request = [*request, {"role": "user", "content": "That cannot be used. Word it anew, by the same rules."}]
    return Wording(plain, tokens.count(pattern_line(plain)), tuple(rejections))


_CONDITION: Final = re.compile(
    r"\b(?:for|in|on)\s+(?:[\w-]+\s+){0,4}(?:questions|requests|segments?|customers|users)\b"
    r"|\b(?:when|if|whenever)\s+(?:[\w-]+\s+){0,2}(?:questions?|segment|users?|customers?)\s+(?:is|are|comes?|belongs?)\b",
    re.IGNORECASE,
)


def _misses(rule: str, dimension: str, value: str, question_type: str | None) -> str | None:
    """Return how *rule* asks for something else than *value*, or None."""
    if rule.endswith("?") or _FIRST_WORDS_OF_NO_ORDER.match(rule):
        return "no imperative"
    if re.search(r"[.!?;]\s+\S", re.sub(r"\be\.g\. ", "", rule)):
        return "more than one sentence"
    condition = _CONDITION.search(rule)
    if condition and not (question_type and question_type.replace("_", " ") in condition[0].replace("_", " ").lower()):
        return f"a condition that is not the pattern's: {condition[0]!r}"
    wanted = value.removeprefix(AVOID)
    meaning = _MEANING.get((dimension, wanted)) or rf"(?<!\w){re.escape(wanted)}(?!\w)"
    if not re.search(meaning, rule, re.IGNORECASE):
        return f"does not name {wanted!r}"
    if wanted != value:
        return None if _NEGATION.search(rule) else f"does not ask to avoid {wanted!r}"
    is_denied = re.search(rf"(?:{_NEGATION.pattern})[^.;:,]{{0,40}}(?:{meaning})", rule, re.IGNORECASE)
    return f"asks to avoid {wanted!r}" if is_denied and dimension not in _DENYING else None


def _adds(rule: str, plain: str, value: str, question_type: str | None) -> str | None:
    """Return what *rule* says beyond its template *plain*, or None."""
    word = strange_word(rule, (plain, value, question_type or ""))
    return f"a word that is not about the instruction: {word!r}" if word is not None else None


_DENYING: Final = ("follow_up", "threshold", "min_count", "severity")  # dimensions whose plain values say no themselves


def _request(type: PatternType, question_type: str | None, plain: str) -> list[Message]:  # noqa: A002
    where = f" Questions are of the type {question_type!r}." if question_type else ""
    return [
        {
            "role": "system",
            "content": "You word instructions for an assistant. Answer with one imperative sentence of at most 30 "
            "words, in English, and nothing else. Keep the meaning, add no condition and no other subject, and use "
            "plain words about how answers are written. No praise, no urgency, no mention of ratings, no names, links "
            "or markup.",
        },
        {"role": "user", "content": f"Kind of instruction: {type}.{where}\nInstruction: {plain}"},
    ]
