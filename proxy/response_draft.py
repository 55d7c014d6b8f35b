"""A response's record in the making: what is known when its request leaves, and what its reply adds."""

from typing import Any

import msgspec

from proxy.conversation import Place
from proxy.description import Description
from proxy.dialect import Dialect
from proxy.headers import find
from proxy.incoming import IncomingRequest
from proxy.parsed_request import ParsedRequest
from proxy.recorded_messages import messages_json
from proxy.reply import Reply
from proxy.reply_shape import length_band, response_format
from store.clock import iso
from store.plan import digest
from store.records import InjectionRecord, InjectionSet, ResponseRecord, storable
from store.vocabulary import UNKNOWN_QUESTION_TYPE, Outcome


class Draft(msgspec.Struct, kw_only=True):
    """What is known of a response when its request leaves."""

    incoming: IncomingRequest
    dialect: Dialect
    parsed: ParsedRequest
    facts: Description
    place: Place
    question_type: str = UNKNOWN_QUESTION_TYPE
    question_type_confidence: float | None = None
    is_holdout: bool = False
    generation: int = 0
    injected_tokens: int = 0
    injections: tuple[InjectionRecord, ...] = ()
    drawn: tuple[InjectionSet, ...] = ()


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """How a turn ended, as the relay saw it."""

    outcome: Outcome
    status: int
    upstream: str
    first_byte_s: float | None
    at_s: float


def record_of(
    draft: Draft, response_id: str, reply: Reply, ending: Ending, *, history_hash: str, max_chars: int
) -> ResponseRecord:
    """Return the record of a response that has ended; of long texts *max_chars* are kept."""
    facts, parsed = draft.facts, draft.parsed
    message = reply.message
    return ResponseRecord(
        id=response_id,
        tenant_id=facts.asker.tenant_id,
        conversation_id=storable(draft.place.conversation.id),
        upstream_id=reply.upstream_id,
        endpoint=draft.incoming.endpoint,
        upstream=ending.upstream,
        model=storable(parsed.model),
        user_id=storable(facts.asker.user_id),
        segment=facts.segment,
        agent=facts.agent,
        question=storable(facts.question[:max_chars]),
        question_type=draft.question_type,
        question_type_confidence=draft.question_type_confidence,
        data_source=facts.data_source,
        prompt_template=facts.prompt_template,
        tool_set=digest(*names) if (names := parsed.tool_names()) else "",
        response_format=response_format(message),
        length_band=length_band(message),
        outcome=_outcome(ending, reply),
        status=ending.status,
        finish_reason=reply.finish_reason,
        is_stream=parsed.is_stream,
        is_holdout=draft.is_holdout,
        generation=draft.generation,
        injected_tokens=draft.injected_tokens,
        prompt_tokens=reply.prompt_tokens,
        completion_tokens=reply.completion_tokens,
        cached_tokens=reply.cached_tokens,
        latency_ms=_ms(draft.incoming.received_s, ending.at_s),
        first_byte_ms=None if ending.first_byte_s is None else _ms(draft.incoming.received_s, ending.first_byte_s),
        tags_json=_json(facts.tags),
        messages_json=messages_json(parsed, draft.place.n_known, max_chars),
        reply_json=_json(message) if message else None,
        history_hash=history_hash,
        request_hash=draft.place.request_hash,
        created_at=iso(draft.incoming.received_s),
        completed_at=iso(ending.at_s),
        injections=draft.injections,
        drawn=",".join([one.set for one in draft.drawn]),
        trace_parent=(find(draft.incoming.headers, b"traceparent") or b"").decode("latin-1"),
    )


def _outcome(ending: Ending, reply: Reply) -> Outcome:
    """Return what became of the response: a reply that ends early or tells of an error is no success."""
    if ending.outcome == "ok" and (reply.has_error or (reply.is_readable and not reply.is_complete)):
        return "upstream_error"
    return ending.outcome


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _ms(start_s: float, end_s: float) -> float:
    return round(max(end_s - start_s, 0.0) * 1000, 3)
