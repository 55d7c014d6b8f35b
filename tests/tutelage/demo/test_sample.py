from importlib.resources import files

from tutelage.demo.library import exchanges
from tutelage.demo.sample import load_sample


def test_the_sample_has_the_shape_that_import_reads() -> None:
    conversations = load_sample()
    assert len(conversations) >= 60
    assert len({conversation["chatId"] for conversation in conversations}) == len(conversations)
    assert {tuple(conversation) for conversation in conversations} == {("chatId", "messages", "tags", "resolved")}
    roles = {message["role"] for conversation in conversations for message in conversation["messages"]}
    assert roles == {"user", "assistant"}


def test_the_sample_covers_many_services_resolved_and_not() -> None:
    conversations = load_sample()
    assert len({exchange.intent for exchange in exchanges(conversations)}) > 30
    assert {conversation["resolved"] for conversation in conversations} == {True, False}


def test_the_licence_stands_beside_the_sample_and_says_what_was_changed() -> None:
    folder = files("tutelage.demo").joinpath("data")
    licence = folder.joinpath("LICENSE.md").read_text(encoding="utf-8")
    for part in ("CC BY-SA 4.0", "Schema-Guided Dialogue", "Google Research", "What was changed"):
        assert part in licence
    assert f"{len(load_sample())} conversations" in licence


def test_the_sample_is_small() -> None:
    data = files("tutelage.demo").joinpath("data", "conversations.jsonl").read_bytes()
    assert len(data) < 150_000
