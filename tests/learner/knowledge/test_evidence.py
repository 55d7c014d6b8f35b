"""What entries do for the replies that have them: who is proposed for deletion, and who cannot have others proposed."""

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from learner.knowledge.evidence import Totals, evidence_of, n_unrelated, uses_by_entry, wilson_low
from store.clock import iso
from store.context_evidence import ContextEvidence, ContextUse, find_evidence
from store.context_proposals import create_context
from store.context_review import approve_context
from store.contexts import ContextRow, get_context
from store.records import InjectionRecord
from store.wordings import compose
from tests.conftest import NOW_S
from tests.learner.knowledge.conftest import REFUND, TENANT, Learning

DAY_S = 86_400.0


def use(user: str, satisfaction: float, *, treated: bool = True, context_id: str = "ctx_1") -> ContextUse:
    return ContextUse(context_id, treated, 0.95, user, iso(NOW_S), satisfaction, True, satisfaction < 0)


def judged(entry_uses: list[ContextUse], all_uses: list[ContextUse]) -> ContextEvidence:
    return evidence_of(entry_uses, Totals.of(uses_by_entry(all_uses)))


def uses(n: int, difference: float, share: float = 0.95) -> list[ContextUse]:
    rng = np.random.default_rng(1)
    found = []
    for number in range(n):
        treated = bool(rng.random() < share)
        chance = 0.5 + (difference / 2 if treated else 0.0)
        found.append(
            replace(use(f"u{number}", 1.0 if rng.random() < chance else -1.0, treated=treated), propensity=share)
        )
    return found


def test_an_entry_that_harms_is_proposed_by_the_lot() -> None:
    found = judged(uses(4_000, -0.5), uses(4_000, -0.5))
    assert found.lift_high is not None
    assert found.lift_high < 0
    assert found.proposal is not None
    assert "do worse than those from which it was held back" in found.proposal


def test_an_entry_that_helps_or_does_nothing_is_not_proposed() -> None:
    for difference in (0.0, 0.5):
        found = judged(uses(4_000, difference), uses(4_000, difference))
        assert found.proposal is None
        assert found.lift_low is not None
        assert found.lift_low <= difference <= (found.lift_high or 0.0)


def test_an_entry_that_fails_most_of_its_users_and_more_than_others_is_proposed() -> None:
    failing = [use(f"u{number}", -1.0) for number in range(5)]
    good = [use(f"v{number}", 1.0, context_id="ctx_2") for number in range(50)]
    found = judged(failing, failing + good)
    assert (found.n_uses, found.n_failed, found.n_failed_users, found.n_rated_users) == (5, 5, 5, 5)
    assert found.proposal == (
        "it failed 5 of 5 users who said anything; usual are 2% (5 uses, 0 held back, 5 users, 5 failures)"
    )


def test_where_everything_fails_no_entry_is_to_blame() -> None:
    failing = [use(f"u{number}", -1.0) for number in range(5)]
    bad = [use(f"v{number}", -1.0, context_id="ctx_2") for number in range(50)]
    assert judged(failing, failing + bad).proposal is None


@given(n=st.integers(1, 300), n_users=st.integers(1, 2))
def test_fewer_than_three_users_propose_nothing_however_often_they_complain(n: int, n_users: int) -> None:
    failing = [use(f"u{number % n_users}", -1.0, treated=number % 20 > 0) for number in range(n)]
    good = [use(f"v{number}", 1.0, context_id="ctx_2") for number in range(20)]
    assert judged(failing, failing + good).proposal is None


@given(n=st.integers(1, 500), share=st.floats(0, 1))
def test_the_low_end_lies_between_nothing_and_the_share(n: int, share: float) -> None:
    n_hits = round(share * n)
    assert -1e-9 <= wilson_low(n_hits, n) <= n_hits / n


def test_questions_that_have_nothing_in_common_are_counted() -> None:
    vectors = np.eye(4, dtype=np.float32)
    assert n_unrelated(np.concatenate([vectors, vectors])) == 4
    assert n_unrelated(np.zeros((0, 4), np.float32)) == 0


def served_entry(learning: Learning) -> ContextRow:
    learning.chat("source", "How do I get a refund for a cancelled order?", REFUND, "Thanks, that worked!")
    learning.run()
    (entry,) = learning.entries()
    return approve_context(learning.db, TENANT, entry.id, actor="ann", now_s=NOW_S)


def complain(learning: Learning, context_id: str, n: int, start: int = 0) -> None:
    for number in range(start, start + n):
        item = InjectionRecord("context", context_id, "", 0.95, 0.95, number % 4 > 0, 0.8, 40)
        response = learning.response(
            f"talk-{number}", "How do I get a refund?", "No idea.", user_id=f"u{number}", injections=(item,)
        )
        learning.signal(response, "thumbs_down", user=f"u{number}")


def test_what_keeps_failing_waits_in_review_with_its_figures_and_is_still_served(learning: Learning) -> None:
    entry = served_entry(learning)
    complain(learning, entry.id, 8)

    report = learning.run(now_s=NOW_S + DAY_S)

    proposed = get_context(learning.db, TENANT, entry.id)
    assert (proposed.status, proposed.is_served, proposed.flag_count) == ("flagged", True, 0)
    assert proposed.flag_reason is not None
    assert proposed.flag_reason.startswith("proposed_deletion: it failed 6 of 6 users who said anything")
    found = find_evidence(learning.db, TENANT, entry.id)
    assert found is not None
    assert (found.n_uses, found.n_held_back, found.n_users, found.n_failed) == (6, 2, 8, 6)
    assert report.counts["proposed_deletions"] == 1
    assert learning.run(now_s=NOW_S + 2 * DAY_S).counts["proposed_deletions"] == 0
    assert learning.db.value("SELECT count(*) FROM alerts WHERE kind = 'context_proposed_deletion'") == 1


def test_a_reviewer_who_keeps_an_entry_is_not_asked_again_about_the_same_replies(learning: Learning) -> None:
    entry = served_entry(learning)
    complain(learning, entry.id, 8)
    learning.run(now_s=NOW_S + DAY_S)
    approve_context(learning.db, TENANT, entry.id, actor="ann", now_s=NOW_S + DAY_S)

    report = learning.run(now_s=NOW_S + 2 * DAY_S)

    assert get_context(learning.db, TENANT, entry.id).status == "approved"
    assert report.counts["proposed_deletions"] == 0
    found = find_evidence(learning.db, TENANT, entry.id)
    assert found is not None
    assert (found.n_uses, found.proposal) == (0, None)


def test_an_entry_near_questions_that_have_nothing_in_common_is_told_before_it_is_approved(learning: Learning) -> None:
    subjects = ("refund my cancelled order", "change the violin strings", "volcano ash forecast")
    wording = compose(subjects, "Open the page.", (), embedder=learning.embedder, tokens=learning._tokens)
    entry = create_context(
        learning.db, TENANT, wording, provenance="answer", source_chat_id=None, actor="learner", now_s=NOW_S
    )
    for number, subject in enumerate(subjects):
        learning.response(f"ask-{number}", subject, "Here you are.")
    assert (learning.embedder.embed(list(subjects)) @ entry.embedding).min() >= 0.5

    learning.run(now_s=NOW_S + DAY_S)

    found = find_evidence(learning.db, TENANT, entry.id)
    assert found is not None
    assert found.n_unrelated == 3
    assert learning.db.value("SELECT count(*) FROM alerts WHERE kind = 'context_suspicious'") == 1
