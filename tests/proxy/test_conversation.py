"""A conversation is recognised by its history, however clients write it down."""

import json
from collections.abc import Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from proxy.chat_request import parse_chat_request
from proxy.conversation import Asker, Conversation, ConversationBook, Place, Recent, history_hashes, reply_hash
from proxy.dialect import LEARNED, MESSAGES_PATH, RESPONSES_PATH
from proxy.parsed_request import ParsedRequest
from store.responses import OpeningFacts

SYSTEM = {"role": "system", "content": "It is 12:00. Be kind."}
ANONYMOUS = Asker("default", "", "")
KNOWN = Asker("default", "u", "")
REPLY = {"role": "assistant", "content": "Hello!"}


def ask(*messages: dict[str, Any]) -> ParsedRequest:
    return parse_chat_request(json.dumps({"messages": messages}).encode())


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


class FakeDatabase:
    """Knows one conversation."""

    def __init__(self, history_hash: str = "", conversation_id: str = "") -> None:
        self.facts = OpeningFacts(conversation_id, "refund", "crm", "template", "gold")
        self.history_hash = history_hash
        self.replies: dict[str, Conversation] = {}

    def find_history(self, _tenant_id: str, history_hashes: Sequence[str]) -> tuple[OpeningFacts, int] | None:
        return (self.facts, history_hashes.index(self.history_hash)) if self.history_hash in history_hashes else None

    def find_reply(self, _tenant_id: str, upstream_id: str) -> Conversation | None:
        return self.replies.get(upstream_id)

    def find_conversation(self, _tenant_id: str, conversation_id: str) -> OpeningFacts | None:
        return self.facts if conversation_id == self.facts.conversation_id else None


def book(database: FakeDatabase | None = None, size: int = 100) -> ConversationBook:
    database = database or FakeDatabase()
    return ConversationBook(
        size=size,
        regenerate_window_s=600,
        find_history=database.find_history,
        find_conversation=database.find_conversation,
        find_reply=database.find_reply,
    )


def turn(conversations: ConversationBook, asker: Asker, *messages: dict[str, Any], now_s: float = 0.0) -> Place:
    place = conversations.place(ask(*messages), asker, now_s)
    conversations.remember(place, REPLY)
    return place


def test_the_next_turn_continues_the_conversation_though_the_system_text_changed() -> None:
    conversations = book()
    first = turn(conversations, ANONYMOUS, SYSTEM, user("hi"))
    second = turn(conversations, ANONYMOUS, {**SYSTEM, "content": "It is 12:01."}, user("hi"), REPLY, user("more"))
    third = turn(conversations, ANONYMOUS, user("hi"), REPLY, user("more"), REPLY, user("even more"))
    assert first.conversation is second.conversation is third.conversation
    assert [place.n_known for place in (first, second, third)] == [0, 3, 4]


def test_a_tool_loop_stays_in_its_conversation() -> None:
    conversations = book()
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
    first = conversations.place(ask(user("weather?")), ANONYMOUS, 0)
    conversations.remember(first, {"role": "assistant", "content": None, "tool_calls": [call]})
    rewritten = {"id": "c1", "function": {"arguments": '{ "a": 1 }', "name": "f"}, "type": "function"}
    result = {"role": "tool", "tool_call_id": "c1", "content": "sunny"}
    second = conversations.place(
        ask(user("weather?"), {"role": "assistant", "tool_calls": [rewritten]}, result), ANONYMOUS, 1
    )
    assert second.conversation is first.conversation
    assert second.n_known == 2


def test_unknown_users_first_turns_are_always_new_and_stay_apart_when_they_go_alike() -> None:
    conversations = book()
    first, second = (turn(conversations, ANONYMOUS, user("hi")) for _ in range(2))
    assert first.conversation.id != second.conversation.id
    continued = [turn(conversations, ANONYMOUS, user("hi"), REPLY, user(text)) for text in ("a", "b")]
    assert [place.conversation.id for place in continued] == [first.conversation.id, second.conversation.id]


def test_a_known_users_first_turn_asked_again_soon_is_the_same_conversation() -> None:
    conversations = book()
    first = turn(conversations, KNOWN, user("hi"), now_s=0)
    again = turn(conversations, KNOWN, user("hi"), now_s=600)
    later = turn(conversations, KNOWN, user("hi"), now_s=1300)
    somebody_else = turn(conversations, Asker("default", "v", ""), user("hi"), now_s=1300)
    other_tenant = turn(conversations, Asker("other", "u", ""), user("hi"), now_s=1300)
    assert again.conversation is first.conversation
    assert again.request_hash == first.request_hash
    ids = {place.conversation.id for place in (first, later, somebody_else, other_tenant)}
    assert len(ids) == 4


def test_a_later_turn_asked_again_is_the_same_conversation() -> None:
    conversations = book()
    turn(conversations, KNOWN, user("hi"))
    second, again = (turn(conversations, KNOWN, user("hi"), REPLY, user("more")) for _ in range(2))
    assert second.conversation is again.conversation
    assert second.request_hash == again.request_hash


def test_the_apps_own_name_for_a_conversation_wins() -> None:
    conversations = book()
    named = Asker("default", "u", "mine")
    first = turn(conversations, named, user("hi"))
    second = turn(conversations, named, user("something else"))
    third = turn(conversations, named, user("hi"), REPLY, user("more"))
    assert {place.conversation.id for place in (first, second, third)} == {"mine"}
    assert first.conversation is third.conversation
    assert third.n_known == 2
    assert turn(conversations, Asker("other", "u", "mine"), user("hi")).conversation is not first.conversation


def test_a_conversation_that_memory_forgot_is_found_in_the_database() -> None:
    asked = ask(user("hi"))
    history_hash = reply_hash(history_hashes(ANONYMOUS, asked)[-1], REPLY)
    conversations = book(FakeDatabase(history_hash, "conv_known"))
    place = conversations.place(ask(user("hi"), REPLY, user("more")), ANONYMOUS, 0)
    assert (place.conversation.id, place.n_known) == ("conv_known", 2)
    assert place.conversation.facts is not None
    assert place.conversation.facts.question_type == "refund"
    named = book(FakeDatabase("", "mine")).place(ask(user("hi"), REPLY, user("more")), Asker("default", "", "mine"), 0)
    assert named.conversation.facts == place.conversation.facts


def test_an_unknown_history_begins_a_conversation_with_all_its_messages() -> None:
    place = book().place(ask(user("hi"), REPLY, user("more")), ANONYMOUS, 0)
    assert place.n_known == 0


def test_memory_is_bounded_and_forgets_the_least_used() -> None:
    recent: Recent[int, int] = Recent(2)
    for key in (1, 2):
        recent.put(key, key)
    assert recent.get(1) == 1
    recent.put(3, 3)
    assert (len(recent), recent.get(1), recent.get(2), recent.get(3)) == (2, 1, None, 3)


def test_only_system_text_is_a_question_too() -> None:
    one, two = (history_hashes(ANONYMOUS, ask({**SYSTEM, "content": text})) for text in "ab")
    assert len(one) == 1
    assert one != two


texts = st.text(alphabet=st.characters(codec="utf-8"), max_size=10)


@given(texts, texts)
def test_the_same_text_as_a_string_or_as_parts_is_one_history(left: str, right: str) -> None:
    parts = [
        {"type": "text", "text": left, "cache_control": {"type": "ephemeral"}},
        {"type": "text", "text": right},
    ]
    message = {"role": "assistant", "content": left + right, "refusal": None, "tool_calls": None, "tool_call_id": None}
    plain = history_hashes(ANONYMOUS, ask(user("q"), {"role": "assistant", "content": parts}))
    assert history_hashes(ANONYMOUS, ask(user("q"), message)) == plain
    assert reply_hash(plain[0], {"role": "assistant", "content": left + right}) == plain[1]


def test_other_images_are_another_request() -> None:
    def seen(url: str) -> list[str]:
        part = {"type": "image_url", "image_url": {"url": url}}
        return history_hashes(ANONYMOUS, ask({"role": "user", "content": [part]}))

    assert seen("data:a") == seen("data:a") != seen("data:b")


def responses(**body: Any) -> ParsedRequest:
    return LEARNED[RESPONSES_PATH].parse(json.dumps(body).encode())


def messages(*sent: dict[str, Any]) -> ParsedRequest:
    return LEARNED[MESSAGES_PATH].parse(json.dumps({"messages": sent, "system": "Be kind."}).encode())


CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
CALLED = {"role": "assistant", "content": "Wait.", "tool_calls": [CALL]}


def test_output_items_that_are_sent_again_continue_the_conversation() -> None:
    conversations = book()
    first = conversations.place(responses(instructions="Be kind.", input="hi"), ANONYMOUS, 0)
    conversations.remember(first, CALLED)
    items = [
        user("hi"),
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "x"},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Wait."}]},
        {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "f", "arguments": '{"a": 1}'},
        {"type": "function_call_output", "call_id": "c1", "output": "42"},
    ]
    second = conversations.place(responses(instructions="It is 12:01.", input=items), ANONYMOUS, 1)
    conversations.remember(second, REPLY)
    third = conversations.place(responses(input=[*items, REPLY, user("more")]), ANONYMOUS, 2)
    assert first.conversation is second.conversation is third.conversation
    assert [place.n_known for place in (first, second, third)] == [0, 3, 4]


def test_content_blocks_that_are_sent_again_continue_the_conversation() -> None:
    conversations = book()
    first = conversations.place(messages(user("hi")), ANONYMOUS, 0)
    conversations.remember(first, CALLED)
    loop = [
        user([{"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}}]),
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Hm.", "signature": "s"},
                {"type": "text", "text": "Wait."},
                {"type": "tool_use", "id": "c1", "name": "f", "input": {"a": 1}},
            ],
        },
        user([{"type": "tool_result", "tool_use_id": "c1", "content": "42"}]),
    ]
    second = conversations.place(messages(*loop), ANONYMOUS, 1)
    conversations.remember(second, REPLY)
    third = conversations.place(messages(*loop, REPLY, user("more")), ANONYMOUS, 2)
    assert first.conversation is second.conversation is third.conversation
    assert [place.n_known for place in (first, second, third)] == [0, 3, 5]


def test_a_previous_response_gives_the_conversation_and_all_messages_are_new() -> None:
    database = FakeDatabase()
    known = database.replies["resp_1"] = Conversation("conv_known")
    conversations = book(database)
    place = conversations.place(
        responses(previous_response_id="resp_1", instructions="Be kind.", input="more"), ANONYMOUS, 0
    )
    assert place.conversation is known
    assert place.n_known == 1
    unknown = conversations.place(responses(previous_response_id="resp_2", input="more"), ANONYMOUS, 0)
    assert unknown.conversation is not known
    assert unknown.n_known == 0


def test_the_same_words_after_another_response_are_another_request() -> None:
    conversations = book()
    hashes = [
        conversations.place(responses(previous_response_id=name, input="next"), KNOWN, 0).request_hash
        for name in ("resp_1", "resp_2", "resp_1")
    ]
    assert hashes[0] == hashes[2] != hashes[1]


def test_a_conversation_that_the_upstream_keeps_goes_on_and_no_turn_is_taken_for_another() -> None:
    conversations = book()
    asker = Asker("default", "u", "conv_up")
    first, second = (
        conversations.place(responses(conversation="conv_up", instructions="Be kind.", input="next"), asker, now_s)
        for now_s in (0, 1)
    )
    assert first.conversation is second.conversation
    assert (first.n_known, second.n_known) == (0, 1)
    assert first.request_hash != second.request_hash
    found = book(FakeDatabase("", "conv_up")).place(responses(conversation="conv_up", input="next"), asker, 0)
    assert found.conversation.facts is not None


def test_a_request_without_any_message_has_a_place_too() -> None:
    assert book().place(responses(prompt={"id": "p"}), ANONYMOUS, 0).n_known == 0
