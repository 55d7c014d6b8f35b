"""Signals that users give without a button: what their next turn says about the reply before it.

Found in the records, so that it costs the request path nothing. The rules are few and literal: a missed signal costs
a little evidence, an invented one teaches something false.
"""

import re
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, Final, Literal

import msgspec

from learner.cycles import without_cycle_search
from store.clock import parse_iso
from store.config import FeedbackSection
from store.database import Database
from store.feedback import Signal, record_traffic_signals
from store.turns import FollowedResponse, followed_responses
from store.vocabulary import signal_family

TrafficSignal = Literal["follow_up", "regenerate", "correction"]

_CORRECTION: Final = re.compile(
    r"""^\W*(?:
      (?:no|nope|sorry|hmm+|but|well)\b[\s,.!:-]*(?:that|this|it|you|the\ answer)
        (?:'s|'re|\ is|\ are|\ was|\ were)\s+(?:not\b|wrong|incorrect|false|mistaken|outdated)
    | (?:that|this|it|you|your\ answer|the\ answer)(?:'s|'re|\ is|\ are|\ was|\ were)\s+
        (?:wrong|incorrect|not\ (?:right|correct|true)|false|mistaken|outdated)
    | (?:that|this|it)\s+(?:isn'?t|wasn'?t)\s+(?:right|correct|true)
    | no[\s,.!:-]+(?:it|that|they|the\ [\w\ ]{1,40}?)(?:'s|'re|\ is|\ are|\ was|\ were|\ should\ be)\b
    | actually[\s,]+(?:it|that|they|the\ [\w\ ]{1,40}?)(?:'s|'re|\ is|\ are|\ was|\ were|\ should)\b
    | (?:wrong|incorrect)\s*[,.!:-]
    | you\s+(?:made\s+a\s+mistake|got\s+(?:that|it|this)\s+wrong)
    | correction\s*[:,-]
    )""",
    re.IGNORECASE | re.VERBOSE,
)
_CLOSING: Final = re.compile(
    r"""^\W*(?:no|ok(?:ay)?|great|perfect|awesome|cool|nice|super|excellent|wonderful|good|yes|yep|thx|ty|cheers|bye
      |goodbye|thank(?:s|\ you)(?:\ (?:a\ lot|so\ much|very\ much|again|a\ million))?(?:\ for\ [^.!?\n]{1,60})?
      |got\ it|that(?:'s|\ is|\ was)?\ (?:all|great|perfect|helpful|it|what\ i\ needed)
      |(?:that|it|this)\ (?:worked|works|helps|helped|solved\ it)|(?:very\ |really\ |so\ )?(?:much|helpful|appreciated)
      |i\ appreciate\ it|have\ a\ (?:nice|good|great)\ \w+|you\ too|see\ you)
      (?:[\s,.!:;)-]+|$)""",
    re.IGNORECASE | re.VERBOSE,
)
MAX_CORRECTION_CHARS: Final = 16_000
WRITTEN_AT_ONCE: Final = 1000  # signals in one short transaction: a commit costs as much as writing several


def find_traffic_signals(db: Database, tenant_id: str, settings: FeedbackSection, *, after: int, until: int) -> int:
    """Write the signals of all turns that arrived in ``after < seq <= until``; return how many.

    Doing it again changes nothing: a response that has a signal of the family, whoever gave it, keeps it.

    Raises:
        UnavailableError: the database is missing, locked or damaged; call again.
    """
    n_found = 0
    found = _found(db, tenant_id, settings, after=after, until=until)
    with without_cycle_search():
        while page := list(islice(found, WRITTEN_AT_ONCE)):
            record_traffic_signals(db, tenant_id, page, settings)
            n_found += len(page)
    return n_found


def _found(
    db: Database, tenant_id: str, settings: FeedbackSection, *, after: int, until: int
) -> Iterator[tuple[Signal, float]]:
    for pair in followed_responses(db, tenant_id, after=after, until=until):
        signal = judge(pair, follow_up_window_s=settings.follow_up_window_s)
        if signal is not None and signal_family(signal) not in pair.families:
            yield (
                Signal(
                    response_id=pair.response_id,
                    signal=signal,
                    user=pair.user_id,
                    id=f"traffic-{signal}-{pair.response_id}",
                    correction=_last_user_text(pair)[:MAX_CORRECTION_CHARS] if signal == "correction" else None,
                ),
                parse_iso(pair.next_created_at),
            )


def judge(pair: FollowedResponse, *, follow_up_window_s: float) -> TrafficSignal | None:
    """Return what the following turn says about the response, or None.

    - ``regenerate``: the very same request again.
    - ``correction``: the user's next message begins by saying that the answer is wrong, or what is right instead.
    - ``follow_up``: a new question within *follow_up_window_s* seconds of the reply's end.

    A tool's result is the same turn going on, and "thanks" is a farewell: neither says anything.
    """
    if pair.next_request_hash == pair.request_hash:
        return "regenerate"
    text = _last_user_text(pair)
    if not text:
        return None
    found = _said(text, pair, follow_up_window_s)
    return None if found is None or is_closing(text) or _has_tool_calls(pair) else found


def _said(text: str, pair: FollowedResponse, follow_up_window_s: float) -> TrafficSignal | None:
    if is_correction(text):
        return "correction"
    waited_s = parse_iso(pair.next_created_at) - parse_iso(pair.completed_at)
    return "follow_up" if 0 <= waited_s <= follow_up_window_s else None


def is_correction(text: str) -> bool:
    """Return whether a user's message begins by correcting the answer before it.

    >>> is_correction("No, it's 30 days."), is_correction("That's wrong."), is_correction("Actually, can you help?")
    (True, True, False)
    """
    return _CORRECTION.match(_plain_quotes(text)) is not None


def is_closing(text: str) -> bool:
    """Return whether a message only says thanks, yes or goodbye.

    >>> is_closing("Great, thank you so much!"), is_closing("Thanks. How do I cancel?")
    (True, False)
    """
    rest = _plain_quotes(text).strip()
    while rest and (match := _CLOSING.match(rest)):
        rest = rest[match.end() :]
    return not any(character.isalnum() for character in rest)


def _plain_quotes(text: str) -> str:
    return text if text.isascii() else text.replace("\u2019", "'")


def _last_user_text(pair: FollowedResponse) -> str:
    """Return the text of the user's message that ends the following turn; '' when it ends otherwise."""
    messages = _decoded(pair.next_messages_json)
    last = messages[-1] if isinstance(messages, list) and messages else None
    if not isinstance(last, Mapping) or last.get("role") != "user":
        return ""
    content = last.get("content")
    if isinstance(content, str):
        return content.strip()
    parts = content if isinstance(content, list) else []
    texts = [part.get("text") for part in parts if isinstance(part, Mapping)]
    return "\n".join(text for text in texts if isinstance(text, str)).strip()


def _has_tool_calls(pair: FollowedResponse) -> bool:
    if not pair.reply_json or '"tool_calls"' not in pair.reply_json:  # most are long, and none of them is decoded
        return False
    reply = _decoded(pair.reply_json)
    return isinstance(reply, Mapping) and bool(reply.get("tool_calls"))


def _decoded(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):  # kept as an app sent it, however deep
        return None
