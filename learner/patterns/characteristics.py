"""What a reply was like: one extractor per dimension, each with the values that an instruction can ask for.

A characteristic is a pair (dimension, value). A reply for which a dimension means nothing (no query, no tools offered)
has none of its values and is not compared in it.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Final

from learner.patterns.answer_style import follow_up, strategy
from learner.patterns.charts import chart
from learner.patterns.insights import ALERTING, PERCENTS, SEVERITY_HINTS, min_count, severity, threshold
from learner.patterns.reply_text import Read, Reply, read
from learner.patterns.sql_style import query
from store.vocabulary import PatternType

VERSION: Final = 4  # of the extractors, terminology's too: raise it when one changes, and replies are read again
MAX_TOOLS: Final = 20  # different tools of a tenant that are looked at, most used first

Values = Mapping[str, tuple[str, ...]]
"""What a reply has, by dimension."""
Extractor = Callable[[Read], tuple[str, ...] | None]
"""Values that a reply has; empty: none of the named ones; None: the dimension means nothing for it."""


def characterise(reply: Reply, hints: frozenset[str] | None = None) -> dict[str, tuple[str, ...]]:
    """Return the reply's values by dimension, those left out that mean nothing for it; *hints* as for ``read``."""
    facts = read(reply, hints)
    return {name: found for name, values_of in _extractors(facts.hints) if (found := values_of(facts)) is not None}


@lru_cache(maxsize=10_000)
def _extractors(hints: frozenset[str]) -> tuple[tuple[str, Extractor], ...]:
    """Return those that can say anything of a reply with *hints*; most replies share theirs with others."""
    return tuple(
        (name, values_of)
        for name, _, values_of in EXTRACTORS
        if name not in NEEDED or not hints.isdisjoint(NEEDED[name])
    )


def _format(facts: Read) -> tuple[str, ...] | None:
    reply = facts.reply
    return None if reply.format in ("", "tool_calls") else (reply.format,)


def _length(facts: Read) -> tuple[str, ...] | None:
    reply = facts.reply
    return (reply.length_band,) if reply.length_band and reply.format != "tool_calls" else None


def _tools(facts: Read) -> tuple[str, ...] | None:
    return facts.reply.tools if facts.reply.offers_tools else None


EXTRACTORS: Final[tuple[tuple[str, PatternType, Extractor], ...]] = (
    # The plainest first: of two that always come together, the first one is tried.
    ("response_format", "response_format", _format),
    ("length", "response_format", _length),
    ("tools", "tool_preference", _tools),
    ("query", "query_style", query),
    ("visualization", "visualization_preference", chart),
    ("strategy", "prompt_strategy", strategy),
    ("follow_up", "follow_up_style", follow_up),
    ("threshold", "insight_threshold", threshold),
    ("min_count", "insight_threshold", min_count),
    ("severity", "insight_threshold", severity),
)
NEEDED: Final[Mapping[str, frozenset[str]]] = {  # hints without which a dimension means nothing for a reply
    "threshold": PERCENTS,
    "min_count": ALERTING,
    "severity": SEVERITY_HINTS,
}
TERMINOLOGY: Final = "terminology"  # the tenant's own words, found over all of its replies
TYPES: Final[Mapping[str, PatternType]] = {
    **{name: type_ for name, type_, _ in EXTRACTORS},
    TERMINOLOGY: "domain_knowledge",
}
