"""Which conversation a request belongs to, recognised by its history.

The next turn's messages begin with this turn's messages and its reply, so a hash of both leads from one turn to the
next. Leading system text is left out of the hash: many apps write the time of day into it.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

import msgspec

from proxy.chat_request import Message, ParsedRequest, content_parts, is_text_part, leading_count
from proxy.selection import Facts
from store.ids import new_id
from store.responses import OpeningFacts

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")

LINKS_PER_HISTORY: Final = 4  # conversations of unknown users that went word for word alike and are kept apart
PREFIXES_ASKED: Final = 3  # of the longest histories are looked for in the database, beyond memory


class Recent(Generic[Key, Value]):
    """The most recently used values, at most *size* of them."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._values: OrderedDict[Key, Value] = OrderedDict()

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: Key) -> Value | None:
        value = self._values.get(key)
        if value is not None:
            self._values.move_to_end(key)
        return value

    def put(self, key: Key, value: Value) -> None:
        self._values[key] = value
        self._values.move_to_end(key)
        if len(self._values) > self._size:
            self._values.popitem(last=False)


class Conversation(msgspec.Struct):
    """One conversation and what was fixed at its first turn."""

    id: str
    facts: Facts | None = None  # None before its first turn was looked at


class _Link(msgspec.Struct):
    """A turn that ended with a history; *next_hash* is the request that took it up, "" while none did."""

    conversation: Conversation
    next_hash: str = ""


@dataclass(frozen=True, slots=True)
class Place:
    """Where in its conversation a request stands."""

    conversation: Conversation
    n_known: int
    """The first messages of the request that earlier turns have recorded already."""
    request_hash: str


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks, and in which conversation as the app names it ("" when it does not)."""

    tenant_id: str
    user_id: str
    conversation_id: str


# Both return None when the database does not know or cannot be asked.
FindHistory = Callable[[str, Sequence[str]], tuple[OpeningFacts, int] | None]
FindConversation = Callable[[str, str], OpeningFacts | None]


class ConversationBook:
    """Remembers conversations, in memory for the latest and by asking the database for the rest."""

    def __init__(
        self,
        *,
        size: int,
        regenerate_window_s: float,
        find_history: FindHistory,
        find_conversation: FindConversation,
    ) -> None:
        self._regenerate_window_s = regenerate_window_s
        self._find_history = find_history
        self._find_conversation = find_conversation
        self._by_history: Recent[str, list[_Link]] = Recent(size)
        self._by_id: Recent[tuple[str, str], Conversation] = Recent(size)
        self._first_turns: Recent[str, tuple[Conversation, float]] = Recent(size)

    def place(self, request: ParsedRequest, asker: Asker, now_s: float) -> Place:
        """Return the conversation that *request* continues, or a new one."""
        hashes = history_hashes(asker, request.messages)
        request_hash = hashes[-1]
        ends = [index for index, message in enumerate(request.messages) if message.role == "assistant"]
        if asker.conversation_id:
            return self._named(asker, hashes, ends)
        found = self._in_memory(asker, hashes, ends) or self._in_database(asker, hashes, ends)
        if found:
            return Place(found[0], found[1], request_hash)
        if asker.user_id:
            asked = self._first_turns.get(request_hash)
            if asked and now_s - asked[1] <= self._regenerate_window_s:
                return Place(asked[0], 0, request_hash)
        conversation = Conversation(new_id("conv", now_s))
        if asker.user_id:
            self._first_turns.put(request_hash, (conversation, now_s))
        return Place(conversation, 0, request_hash)

    def _named(self, asker: Asker, hashes: list[str], ends: list[int]) -> Place:
        key = (asker.tenant_id, asker.conversation_id)
        conversation = self._by_id.get(key)
        if conversation is None and ends:
            known = self._find_conversation(*key)
            conversation = _recalled(known) if known else None
        n_known = 0
        if conversation is not None and ends:
            recorded = [end for end in ends if self._is_turn_of(conversation, hashes[end])]
            n_known = (recorded or ends)[-1] + 1
        if conversation is None:
            conversation = Conversation(asker.conversation_id)
        self._by_id.put(key, conversation)
        return Place(conversation, n_known, hashes[-1])

    def _is_turn_of(self, conversation: Conversation, history_hash: str) -> bool:
        return any(link.conversation.id == conversation.id for link in self._by_history.get(history_hash) or ())

    def _in_memory(self, asker: Asker, hashes: list[str], ends: list[int]) -> tuple[Conversation, int] | None:
        for end in reversed(ends):
            links = self._by_history.get(hashes[end])
            if links:
                link = _choose(links, hashes[-1], is_user_known=bool(asker.user_id))
                link.next_hash = hashes[-1]
                return link.conversation, end + 1
        return None

    def _in_database(self, asker: Asker, hashes: list[str], ends: list[int]) -> tuple[Conversation, int] | None:
        if not ends:
            return None
        latest = ends[: -PREFIXES_ASKED - 1 : -1]
        found = self._find_history(asker.tenant_id, [hashes[end] for end in latest])
        if found is None:
            return None
        facts, index = found
        conversation = _recalled(facts)
        end = latest[index]
        self._link(hashes[end], _Link(conversation, hashes[-1]))
        return conversation, end + 1

    def remember(self, place: Place, reply: dict[str, Any]) -> str:
        """Take note of a turn's *reply* and return the hash of the history that now stands."""
        history_hash = reply_hash(place.request_hash, reply)
        links = self._by_history.get(history_hash) or ()
        if not any(link.conversation is place.conversation for link in links):
            self._link(history_hash, _Link(place.conversation))
        return history_hash

    def _link(self, history_hash: str, link: _Link) -> None:
        links = self._by_history.get(history_hash) or []
        self._by_history.put(history_hash, [*links, link][-LINKS_PER_HISTORY:])


def _choose(links: list[_Link], request_hash: str, *, is_user_known: bool) -> _Link:
    """Return the conversation that is taken up.

    A known user's same request is asked again; of unknown users' conversations that went alike, one that nobody has
    taken up yet is the likelier.
    """
    again = [link for link in links if link.next_hash == request_hash]
    waiting = [link for link in links if not link.next_hash]
    preferred = again + waiting if is_user_known else waiting + again
    return (preferred or links[-1:])[0]


def _recalled(known: OpeningFacts) -> Conversation:
    facts = Facts(known.question_type, known.data_source, known.prompt_template, known.segment)
    return Conversation(known.conversation_id, facts)


def history_hashes(asker: Asker, messages: Sequence[Message]) -> list[str]:
    """Return, for each message, the hash of the history up to and with it (32 hex characters); never empty.

    What clients change without meaning it does not count: null fields, ``cache_control``, white space around a text,
    a text as one part or as several, leading system text.
    """
    current = _digest(b"", [asker.tenant_id.encode(), b"\0", asker.user_id.encode("utf-8", "surrogatepass")])
    n_leading = leading_count(messages)
    hashes = [current] * n_leading
    if n_leading == len(messages):  # nothing but system text: then it is the question
        n_leading = 0
        hashes = []
    for message in messages[n_leading:]:
        current = _digest(current.encode(), _message_pieces(message))
        hashes.append(current)
    return hashes


def reply_hash(request_hash: str, reply: dict[str, Any]) -> str:
    """Return the hash of a history that ends with *reply*, an assistant's message."""
    pieces = [b"assistant\0", _text_bytes(str(reply.get("content") or ""))]
    pieces += _call_pieces(reply.get("tool_calls"), reply.get("function_call"))
    return _digest(request_hash.encode(), pieces)


def _digest(previous: bytes, pieces: Sequence[bytes]) -> str:
    return hashlib.blake2b(previous + b"".join(pieces), digest_size=16).hexdigest()


def _message_pieces(message: Message) -> list[bytes]:
    pieces = [message.role.encode("utf-8", "surrogatepass"), b"\0", _text_bytes(message.text)]
    for part in content_parts(message.content) or ():
        if not is_text_part(part):
            pieces += [bytes(part[name]) for name in sorted(part) if name != "cache_control"]
    if message.tool_calls or message.function_call:
        pieces += _call_pieces(_plain(message.tool_calls), _plain(message.function_call))
    if bytes(memoryview(message.tool_call_id)[:1]) == b'"':
        pieces += [b"\0result ", bytes(message.tool_call_id)]
    return pieces


def _call_pieces(tool_calls: Any, function_call: Any) -> list[bytes]:
    pieces: list[bytes] = []
    for call in tool_calls if isinstance(tool_calls, list) else ():
        if isinstance(call, dict):
            function = call.get("function") or call.get("custom")
            pieces += [b"\0call ", str(call.get("id") or "").encode("utf-8", "replace"), *_function_pieces(function)]
    return pieces + _function_pieces(function_call)


def _function_pieces(function: Any) -> list[bytes]:
    if not isinstance(function, dict):
        return []
    arguments = function.get("arguments") or function.get("input") or ""
    try:  # clients that parse arguments write them anew with other spaces
        arguments = msgspec.json.encode(msgspec.json.decode(arguments), order="sorted")
    except (msgspec.DecodeError, TypeError, UnicodeError):
        arguments = str(arguments).encode("utf-8", "replace")
    return [b"\0name ", str(function.get("name") or "").encode("utf-8", "replace"), b"\0arguments ", arguments]


def _text_bytes(text: str) -> bytes:
    return text.strip().encode("utf-8", "replace")


def _plain(raw: msgspec.Raw) -> Any:
    return msgspec.json.decode(raw) if raw else None
