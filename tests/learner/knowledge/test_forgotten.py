"""What was learned goes with those that it was learned from, and is learned again from those that are left."""

from pathlib import Path

from learner.authoring import Author
from learner.forgetting import forget_conversation, forget_user
from store.context_review import approve_context
from store.contexts import list_sources
from store.contradictions import list_contradictions
from store.forgetting import Forgotten
from store.snapshot import load_snapshot
from tests.conftest import NOW_S
from tests.learner.knowledge.conftest import REFUND, TENANT, Learning
from tests.store.test_forgetting import bytes_with, holding

ASKED = "How do I get a refund for a cancelled order?"


def forget(learning: Learning, author: Author, user: str) -> Forgotten:
    return forget_user(learning.db, learning.config, TENANT, author, user=user, actor="command", now_s=NOW_S + 1500)


def served(learning: Learning) -> int:
    contexts = load_snapshot(learning.db, TENANT, embedding_model=learning.embedder.name).contexts
    return 0 if contexts is None else len(contexts)


def test_an_entry_of_two_users_stays_with_the_second_and_goes_with_the_last(learning: Learning, author: Author) -> None:
    for user in ("ann-1", "bob-1"):
        learning.chat(f"talk-of-{user}", ASKED, REFUND, "Thank you!", user=user, human=True)
    learning.run()
    (made,) = learning.entries()
    assert made.n_users == 2
    approve_context(learning.db, TENANT, made.id, actor="eve", now_s=NOW_S)
    assert served(learning) == 1

    first = forget(learning, author, "ann-1")

    assert (first.trimmed_contexts, first.withdrawn_contexts) == ((made.id,), ())
    assert served(learning) == 1
    sources = [source.user_id for source in list_sources(learning.db, TENANT, made.id)[0]]
    assert (sources, holding(learning.db, "ann-1")) == (["bob-1"], [])

    last = forget(learning, author, "bob-1")

    assert (last.withdrawn_contexts, served(learning)) == ((made.id,), 0)
    assert (holding(learning.db, "bob-1"), holding(learning.db, "Request refund")) == ([], [])
    learning.run(now_s=NOW_S + 3000)
    assert [entry.status for entry in learning.entries()] == ["retired"]


def test_what_others_say_of_the_same_matter_is_learned_anew(learning: Learning, author: Author) -> None:
    learning.chat("gone", ASKED, REFUND, "Thank you!", user="ann-1", human=True)
    learning.run()
    forget(learning, author, "ann-1")
    learning.chat("stays", ASKED, REFUND, "Thank you!", user="bob-1", human=True, now_s=NOW_S + 2000)

    learning.run(now_s=NOW_S + 3000)

    assert [(entry.status, entry.source_chat_id) for entry in learning.entries()] == [
        ("retired", None),
        ("pending_approval", "stays"),
    ]


def test_a_forgotten_conversation_takes_its_entry_along(learning: Learning, author: Author, tmp_path: Path) -> None:
    learning.chat("gone", ASKED, REFUND, "Thank you!", human=True)
    learning.run()
    (made,) = learning.entries()

    report = forget_conversation(
        learning.db, learning.config, TENANT, author, conversation_id="gone", actor="command", now_s=NOW_S + 1500
    )

    assert (report.withdrawn_contexts, report.is_scrubbed) == ((made.id,), True)
    assert bytes_with(tmp_path, "Request refund") == []


def test_what_was_said_against_an_entry_goes_with_either_side(learning: Learning, author: Author) -> None:
    learning.chat("talk-of-ann-1", ASKED, REFUND, "Thank you!", user="ann-1", human=True)
    learning.run()
    (made,) = learning.entries()
    approve_context(learning.db, TENANT, made.id, actor="eve", now_s=NOW_S)
    for user in ("bob-1", "cid-1"):
        learning.chat(
            f"talk-of-{user}", ASKED, f"Never, whatever {user[0]} shops say.", user=user, human=True, now_s=NOW_S + 2000
        )
        learning.run(now_s=NOW_S + 3000)
    assert len(list_contradictions(learning.db, TENANT)[0]) == 2

    forget(learning, author, "bob-1")

    (left,) = list_contradictions(learning.db, TENANT)[0]
    assert (left.conversation_id, holding(learning.db, "bob-1")) == ("talk-of-cid-1", [])
    assert holding(learning.db, "whatever b shops") == []

    forget(learning, author, "ann-1")

    assert list_contradictions(learning.db, TENANT)[0] == []
    assert holding(learning.db, "Request refund") == []
