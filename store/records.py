"""One response as it travels from the proxy to the database: a line of JSON in a segment file."""

import hashlib
from collections.abc import Sequence
from typing import Final

import msgspec

from store.vocabulary import Outcome


class InjectionRecord(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One item in play for a response; a row of the view ``injections``."""

    kind: str  # pattern or context
    item_id: str
    dimension: str  # "" for contexts
    propensity: float  # P(treated) for a conversation like this one, the draw of the holdout included
    share: float  # P(treated) outside the holdout: what a contrast of treated conversations and their control weighs
    treated: bool  # its text was in the request
    similarity: float | None  # cosine to the question; None for patterns
    tokens: int  # cl100k_base


class ResponseRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One response with its injections; the columns of ``responses`` and what ``conversations`` needs."""

    id: str
    tenant_id: str
    conversation_id: str
    upstream_id: str | None = None
    endpoint: str
    upstream: str = ""
    model: str = ""
    user_id: str = ""
    segment: str = ""
    agent: str = "ai"
    question: str = ""
    question_type: str
    question_type_confidence: float | None = None
    data_source: str = ""
    prompt_template: str = ""
    tool_set: str = ""
    response_format: str = ""
    length_band: str = ""
    outcome: Outcome
    status: int
    finish_reason: str | None = None
    is_stream: bool = False
    is_holdout: bool = False
    generation: int = 0
    injected_tokens: int = 0
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    latency_ms: float
    first_byte_ms: float | None = None
    tags_json: str = "[]"
    messages_json: str = "[]"
    reply_json: str | None = None
    history_hash: str = ""
    request_hash: str = ""
    created_at: str
    completed_at: str
    injections: tuple[InjectionRecord, ...] = ()
    drawn: str = ""  # more injections: numbers of injection sets, separated by commas
    trace_parent: str = ""  # W3C traceparent of the request: for telemetry, no column holds it


class InjectionSet(msgspec.Struct, frozen=True, gc=False):
    """What was in play together: the arms of one dimension, drawn one way, or one item alone.

    A response refers to it by its number, which follows from its items; one line of a segment says what they are.
    """

    set: str
    items: tuple[InjectionRecord, ...]


def make_set(items: Sequence[InjectionRecord]) -> InjectionSet:
    """Return the set of *items*; the same items always make the same number, whoever makes it.

    63 bits: among ten million sets two of the same number are met with a probability of 5 in a million.
    """
    digest = hashlib.blake2b(msgspec.json.encode(items), digest_size=8).digest()
    return InjectionSet(str(int.from_bytes(digest, "big") >> 1), tuple(items))


_RECORDS: Final = msgspec.json.Decoder(ResponseRecord)
_SETS: Final = msgspec.json.Decoder(InjectionSet)
_SET_MARK: Final = b'{"set":'


def encode_set(injection_set: InjectionSet) -> bytes:
    """Return *injection_set* as one line, its line feed included."""
    return msgspec.json.encode(injection_set) + b"\n"


def encode_record(record: ResponseRecord) -> bytes:
    """Return *record* as one line, its line feed included.

    Raises:
        UnicodeEncodeError: a text holds a lone surrogate; see ``storable``.
    """
    return msgspec.json.encode(record) + b"\n"


def decode_line(line: bytes) -> ResponseRecord | InjectionSet:
    """Return what a segment holds in *line*.

    Raises:
        ValueError: *line* is neither an encoded record nor an encoded set.
    """
    return _SETS.decode(line) if line.startswith(_SET_MARK) else _RECORDS.decode(line)


def storable(text: str) -> str:
    r"""Return *text* with lone surrogates, which neither UTF-8 nor SQLite can hold, replaced.

    >>> storable("cut \ud83d")
    'cut ?'
    """
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
