"""Which conversation a request belongs to, recognised by its history.

The next turn's messages begin with this turn's messages and its reply, so a hash of both leads from one turn to the
next. Leading system text is left out of the hash: many apps write the time of day into it.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Final, Generic, TypeVar

import msgspec

from proxy.parsed_request import Message, ParsedRequest, content_parts, content_text, is_string, is_text_part, plain
from proxy.selection import Facts
from proxy.siblings import TakenUp, TurnEnded
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


class Place(msgspec.Struct, frozen=True, gc=False):
    """Where in its conversation a request stands."""

    conversation: Conversation
    n_known: int
    """The first messages of the request that earlier turns have recorded already."""
    request_hash: str


class Asker(msgspec.Struct, frozen=True, gc=False):
    """Who asks, and in which conversation as the app names it ("" when it does not)."""

    tenant_id: str
    user_id: str
    conversation_id: str


# Both return None when the database does not know or cannot be asked.
FindHistory = Callable[[str, Sequence[str]], tuple[OpeningFacts, int] | None]
FindConversation = Callable[[str, str], OpeningFacts | None]
# Returns the conversation of the tenant's newest reply with this id of its upstream's; None when nobody knows it.
FindReply = Callable[[str, str], "Conversation | None"]
TellTakenUp = Callable[[TakenUp], None]


class ConversationBook:
    """Remembers conversations, in memory for the latest and by asking the database for the rest.

    Args:
        size: how many are kept in memory.
        regenerate_window_s: how long a known user's first request is taken for the same one when it comes again.
        find_history: asks the database.
        find_conversation: asks the database.
        find_reply: asks memory and database.
        tell_taken_up: told when an unknown user's conversation goes on; None without anybody to tell.
    """

    def __init__(
        self,
        *,
        size: int,
        regenerate_window_s: float,
        find_history: FindHistory,
        find_conversation: FindConversation,
        find_reply: FindReply,
        tell_taken_up: TellTakenUp | None = None,
    ) -> None:
        self._tell_taken_up = tell_taken_up
        self._regenerate_window_s = regenerate_window_s
        self._find_reply = find_reply
        self._find_history = find_history
        self._find_conversation = find_conversation
        self._by_history: Recent[str, list[_Link]] = Recent(size)
        self._by_id: Recent[tuple[str, str], Conversation] = Recent(size)
        self._first_turns: Recent[str, tuple[Conversation, float]] = Recent(size)

    def place(self, request: ParsedRequest, asker: Asker, now_s: float) -> Place:
        """Return the conversation that *request* continues, or a new one."""
        ends = [index for index, message in enumerate(request.messages) if message.role == "assistant"]
        hashes = history_hashes(asker, request, held=_held_history(request, now_s))
        request_hash = hashes[-1]
        if asker.conversation_id:
            return self._named(asker, request, hashes, ends)
        if request.previous_id:
            return self._linked(asker, request, request_hash, now_s)
        if request.last_reference:
            reply_item, n_before = request.last_reference
            referred = self._find_reply(asker.tenant_id, reply_item)
            if referred is not None:
                return Place(referred, n_before, request_hash)
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

    def _named(self, asker: Asker, request: ParsedRequest, hashes: list[str], ends: list[int]) -> Place:
        key = (asker.tenant_id, asker.conversation_id)
        conversation = self._by_id.get(key)
        if conversation is None and (ends or request.has_held_history):
            known = self._find_conversation(*key)
            conversation = recalled(known) if known else None
        n_known = 0
        if conversation is not None and request.has_held_history:
            n_known = request.n_leading
        elif conversation is not None and ends:
            recorded = [end for end in ends if self._is_turn_of(conversation, hashes[end])]
            n_known = (recorded or ends)[-1] + 1
        if conversation is None:
            conversation = Conversation(asker.conversation_id)
        self._by_id.put(key, conversation)
        return Place(conversation, n_known, hashes[-1])

    def _linked(self, asker: Asker, request: ParsedRequest, request_hash: str, now_s: float) -> Place:
        """Return the conversation of the reply that the request goes on from.

        Every message is new then, but for the app's leading text, which it sends every time.
        """
        conversation = self._find_reply(asker.tenant_id, request.previous_id)
        if conversation is None:
            return Place(Conversation(new_id("conv", now_s)), 0, request_hash)
        return Place(conversation, request.n_leading, request_hash)

    def _is_turn_of(self, conversation: Conversation, history_hash: str) -> bool:
        return any(link.conversation.id == conversation.id for link in self._by_history.get(history_hash) or ())

    def _in_memory(self, asker: Asker, hashes: list[str], ends: list[int]) -> tuple[Conversation, int] | None:
        for end in reversed(ends):
            links = self._by_history.get(hashes[end])
            if links:
                link = _choose(links, hashes[-1], is_user_known=bool(asker.user_id))
                link.next_hash = hashes[-1]
                if self._tell_taken_up is not None and not asker.user_id:
                    self._tell_taken_up(TakenUp(hashes[end], link.conversation.id, hashes[-1]))
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
        conversation = recalled(facts)
        end = latest[index]
        self._link(hashes[end], _Link(conversation, hashes[-1]))
        return conversation, end + 1

    def remember(self, place: Place, reply: dict[str, Any]) -> str:
        """Take note of a turn's *reply* and return the hash of the history that now stands."""
        history_hash = reply_hash(place.request_hash, reply)
        self._note(history_hash, place.conversation)
        return history_hash

    def asked_first_s(self, place: Place) -> float | None:
        """Return when a known user began a conversation with the request at *place*; None when that is not so."""
        asked = self._first_turns.get(place.request_hash)
        return asked[1] if asked and asked[0] is place.conversation else None

    def hear_end(self, end: TurnEnded) -> Conversation:
        """Take note of a turn that another worker served, and return its conversation."""
        key = (end.tenant_id, end.conversation_id)
        conversation = self._by_id.get(key)
        if conversation is None:
            conversation = Conversation(end.conversation_id)
            self._by_id.put(key, conversation)
        if conversation.facts is None:
            conversation.facts = end.facts
        if end.history_hash:
            self._note(end.history_hash, conversation)
        if end.asked_first_s is not None:
            asked = self._first_turns.get(end.request_hash)
            if asked is None or asked[1] < end.asked_first_s:
                self._first_turns.put(end.request_hash, (conversation, end.asked_first_s))
        return conversation

    def hear_taken_up(self, taken: TakenUp) -> None:
        """Take note that a conversation went on in another worker."""
        for link in self._by_history.get(taken.history_hash) or ():
            if link.conversation.id == taken.conversation_id:
                link.next_hash = taken.request_hash

    def _note(self, history_hash: str, conversation: Conversation) -> None:
        if not self._is_turn_of(conversation, history_hash):
            self._link(history_hash, _Link(conversation))

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


def recalled(known: OpeningFacts) -> Conversation:
    """Return a conversation that the database knows."""
    facts = Facts(known.question_type, known.data_source, known.prompt_template, known.segment)
    return Conversation(known.conversation_id, facts)


def _held_history(request: ParsedRequest, now_s: float) -> str:
    """Return what stands for the history that the upstream keeps; "" when the request holds all of it."""
    if request.previous_id:
        return request.previous_id
    if request.last_reference:
        return request.last_reference[0]
    # A conversation that the upstream keeps has no name for its turns: the same words twice are two turns, and one
    # that is asked again goes unnoticed. The other mistake would throw a turn away.
    return new_id("turn", now_s) if request.has_held_history else ""


def history_hashes(asker: Asker, request: ParsedRequest, *, held: str = "") -> list[str]:
    """Return, for each message, the hash of the history up to and with it (32 hex characters); never empty.

    What clients change without meaning it does not count: null fields, ``cache_control``, white space around a text,
    a text as one part or as several, leading system text. *held* stands for what came before the messages.
    """
    current = _digest(
        b"%b\0%b%b"
        % (
            asker.tenant_id.encode(),
            asker.user_id.encode("utf-8", "surrogatepass"),
            b"\0" + held.encode("utf-8", "surrogatepass") if held else b"",
        )
    )
    n_leading = request.n_leading
    hashes = [current] * n_leading
    if n_leading == len(request.messages):  # nothing but system text: then it is the question
        n_leading = 0
        hashes = []
    for message in request.messages[n_leading:]:
        current = _digest(current.encode() + _message_bytes(message))
        hashes.append(current)
    return hashes or [current]


def reply_hash(request_hash: str, reply: dict[str, Any]) -> str:
    """Return the hash of a history that ends with *reply*, an assistant's message."""
    text = str(reply.get("content") or "").strip().encode("utf-8", "replace")
    calls = _call_bytes(reply.get("tool_calls"), reply.get("function_call"))
    return _digest(b"%bassistant\0%b%b" % (request_hash.encode(), text, calls))


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def _message_bytes(message: Message) -> bytes:
    head = message.role.encode("utf-8", "surrogatepass") + b"\0"
    content = bytes(message.content)
    if content[:1] == b'"' and content.isascii() and b"\\" not in content:
        data = head + content[1:-1].strip(b" ")  # the text is what stands between the quotes
    else:
        data = b"".join([head, *_content_pieces(message.content)])
    if message.tool_calls or message.function_call:
        data += _call_bytes(plain(message.tool_calls), plain(message.function_call))
    if message.tool_call_id and is_string(message.tool_call_id):
        data += b"\0result " + bytes(message.tool_call_id)
    return data


def _content_pieces(content: msgspec.Raw) -> list[bytes]:
    pieces = [_text_bytes(content)]
    for part in content_parts(content) or ():
        if not is_text_part(part):
            pieces += [bytes(part[name]) for name in sorted(part) if name != "cache_control"]
    return pieces


def _text_bytes(content: msgspec.Raw) -> bytes:
    return content_text(content).strip().encode("utf-8", "replace")


def _call_bytes(tool_calls: Any, function_call: Any) -> bytes:
    pieces: list[bytes] = []
    for call in tool_calls if isinstance(tool_calls, list) else ():
        if isinstance(call, dict):
            function = call.get("function") or call.get("custom")
            pieces += [b"\0call ", str(call.get("id") or "").encode("utf-8", "replace"), *_function_pieces(function)]
    return b"".join(pieces + _function_pieces(function_call))


def _function_pieces(function: Any) -> list[bytes]:
    if not isinstance(function, dict):
        return []
    arguments = function.get("arguments") or function.get("input") or ""
    try:  # clients that parse arguments write them anew with other spaces
        arguments = msgspec.json.encode(msgspec.json.decode(arguments), order="sorted")
    except (msgspec.DecodeError, TypeError, UnicodeError):
        arguments = str(arguments).encode("utf-8", "replace")
    return [b"\0name ", str(function.get("name") or "").encode("utf-8", "replace"), b"\0arguments ", arguments]
