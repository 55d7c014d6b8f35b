"""The closed sets of words that tables, endpoints and settings share (DESIGN, section 1)."""

from typing import Final, Literal, get_args

PatternType = Literal[
    "prompt_strategy",
    "query_style",
    "tool_preference",
    "response_format",
    "domain_knowledge",
    "insight_threshold",
    "follow_up_style",
    "visualization_preference",
]
PatternState = Literal["candidate", "trial", "active", "warmdown", "retired", "pinned", "disabled"]
Grade = Literal["none", "provisional", "proven"]
SignalType = Literal[
    "thumbs_up", "thumbs_down", "copy", "follow_up", "dwell_time", "insight_ack", "regenerate", "correction"
]
Outcome = Literal["ok", "cancelled", "upstream_error", "error"]
ContextStatus = Literal["pending_approval", "approved", "rejected", "flagged", "retired"]
JobKind = Literal["nlu-train", "patterns", "knowledge"]
JobStatus = Literal["pending", "processing", "completed", "failed"]
Scope = Literal["app", "admin", "feedback", "reviewer", "viewer"]

PATTERN_TYPES: Final = get_args(PatternType)
GRADES: Final = get_args(Grade)
SERVED_STATES: Final = ("trial", "active", "warmdown", "pinned")
SIGNAL_TYPES: Final = get_args(SignalType)
CONTEXT_STATUSES: Final = get_args(ContextStatus)
UNKNOWN_QUESTION_TYPE: Final = "unknown"
AVOID: Final = "avoid:"  # begins the value of a pattern that asks for replies without what follows
DEFAULT_TENANT: Final = "default"
LEARNER: Final = "learner"  # as store.presence knows it


def signal_family(signal: SignalType) -> str:
    """Return the family within which a later signal of the same user on the same response replaces the earlier.

    >>> signal_family("thumbs_down"), signal_family("copy")
    ('thumb', 'copy')
    """
    return "thumb" if signal in ("thumbs_up", "thumbs_down") else signal
