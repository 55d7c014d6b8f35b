"""The console: every page, every form, and who gets in."""

import dataclasses
import re
from collections.abc import Iterator
from html import unescape
from typing import Any

import pytest
from starlette.testclient import TestClient

from learner.authoring import Author
from learner.console.charts import interval_chart, satisfaction_chart, smoothed
from store.alerts import raise_alert
from store.audit import list_audit
from store.clock import ManualClock
from store.config import Config, TenancySection
from store.contexts import ContextRow, get_context
from store.conversations import import_conversations
from store.database import Database
from store.datasets import NewExample, add_examples, list_examples
from store.feedback import Signal, record_signal
from store.generations import current_number
from store.patterns import get_pattern
from store.plan import Conditions
from store.records import InjectionRecord
from store.responses import insert_records
from store.statistics import ArmDay
from store.tenants import create_key, ensure_tenant, revoke_key
from tests.conftest import NOW_S
from tests.learner.api import client_of
from tests.store.test_conversations import record

ATTACK = "<script>alert(1)</script>\"'"


@dataclasses.dataclass(frozen=True)
class Filled:
    """What there is to look at."""

    pattern_id: str
    context: ContextRow
    example_id: str
    alert_id: str


@pytest.fixture
def filled(db: Database, config: Config, author: Author) -> Filled:
    """One of everything, its texts hostile."""
    return fill(db, config, author, "default")


def fill(db: Database, config: Config, author: Author, tenant_id: str) -> Filled:
    pattern = author.add_pattern(
        db,
        tenant_id,
        type="query_style",
        rule=f"Be brief {ATTACK}",
        conditions=Conditions(question_type=(ATTACK,)),
        state="pinned",
        actor="test",
        now_s=NOW_S,
    )
    context = author.add_context(
        db,
        tenant_id,
        questions=[f"How? {ATTACK}", "What?"],
        answer=f"So. {ATTACK}",
        tags=[ATTACK],
        is_approved=False,
        actor="test",
        now_s=NOW_S,
    )
    example = NewExample(f"hello {ATTACK}", ATTACK, 0.2, "bulk", None, "", None)
    add_examples(db, tenant_id, "ds-auto-training", [example], review_below_confidence=0.7, now_s=NOW_S)
    alert = raise_alert(db, tenant_id, kind="crash", message=ATTACK, detail={}, run_id=None, now_s=NOW_S)
    import_conversations(
        db, tenant_id, [{"chatId": f"im/port {ATTACK}", "messages": [{"role": "user", "content": ATTACK}]}], now_s=NOW_S
    )
    injection = InjectionRecord("pattern", pattern.id, "person", 0.95, 1.0, True, None, 9)
    insert_records(
        db,
        [
            record(
                1,
                [{"role": "user", "content": [{"type": "text", "text": ATTACK}, {"type": "image_url"}]}],
                ATTACK,
                id=f"resp-{tenant_id}",
                tenant_id=tenant_id,
                injections=(injection,),
            )
        ],
    )
    vote = Signal(response_id=f"resp-{tenant_id}", signal="thumbs_up", user=ATTACK, comment=ATTACK)
    record_signal(db, tenant_id, vote, config.feedback, source="api", now_s=NOW_S)
    examples, _ = list_examples(db, tenant_id, "ds-auto-training")
    return Filled(pattern.id, context, examples[0].id, alert)


def pages(filled: Filled) -> list[str]:
    return [
        "/",
        "/contexts",
        "/contexts?status=approved",
        f"/contexts/{filled.context.id}",
        "/patterns",
        "/patterns?state=pinned",
        "/patterns?type=query_style&grade=none&question_type=x&sort=lift",
        f"/patterns/{filled.pattern_id}",
        f"/patterns/{filled.pattern_id}?arm=control",
        f"/patterns/{filled.pattern_id}?arm=natural",
        "/runs",
        "/generations",
        "/generations/1",
        "/alerts",
        "/alerts?show=all",
        "/datasets",
        "/datasets/ds-auto-training",
        "/datasets/ds-auto-training?show=all",
        "/conversations",
        "/conversations/talk",
        "/login",
    ]


def token(client: TestClient, page: str) -> str:
    found = re.search(r'name="csrf_token" value="([0-9a-f]+)"', client.get(page).text)
    assert found
    return found[1]


def post(client: TestClient, page: str, path: str, **fields: str) -> Any:
    return client.post(path, data={"csrf_token": token(client, page), **fields})


def test_every_page_is_there_and_escapes_what_users_wrote(client: TestClient, filled: Filled) -> None:
    for path in pages(filled):
        answer = client.get(path)
        assert answer.status_code == 200, (path, answer.text)
        assert "<script" not in answer.text, path
        assert answer.headers["content-security-policy"].startswith("default-src 'none'")
        assert "style=" not in answer.text, path


def test_every_page_of_an_empty_tenant_is_there(client: TestClient) -> None:
    for path in ("/", "/contexts", "/patterns", "/runs", "/generations", "/alerts", "/datasets", "/conversations"):
        assert client.get(path).status_code == 200, path


def test_every_link_of_every_page_leads_somewhere(client: TestClient, filled: Filled) -> None:
    links = {unescape(link) for path in pages(filled) for link in re.findall(r'href="(/[^"]*)"', client.get(path).text)}
    assert any(link.startswith("/conversations/im%2Fport") for link in links)
    assert [link for link in sorted(links) if client.get(link).status_code != 200] == []


def test_a_conversation_shows_what_was_put_in_where_and_what_came_back(client: TestClient, filled: Filled) -> None:
    text = unescape(client.get("/conversations/talk").text)
    assert "put in at the end of the system text, propensity 0.95" in text
    assert "thumbs up +1.0" in text
    assert f"/patterns/{filled.pattern_id}" in text


def test_a_reviewer_approves_from_the_queue(client: TestClient, filled: Filled, db: Database) -> None:
    path = f"/contexts/{filled.context.id}/approve"
    answer = post(client, "/contexts", path, revision="1", **{"from": "queue"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/contexts")
    assert get_context(db, "default", filled.context.id).is_served
    assert [entry.action for entry in list_audit(db, "default")[0] if entry.actor == "console"] == ["contexts.approve"]
    again = post(client, f"/contexts/{filled.context.id}", path)
    assert again.status_code == 409
    assert "approved already" in again.text


def test_a_reviewer_rejects_with_a_reason(client: TestClient, filled: Filled, db: Database) -> None:
    post(client, "/contexts", f"/contexts/{filled.context.id}/reject", revision="1", reason="old")
    assert get_context(db, "default", filled.context.id).reject_reason == "old"


def ticked(client: TestClient) -> dict[str, str]:
    """Return the fields of the queue's checkboxes, as a browser sends them when all are ticked."""
    boxes = re.findall(
        r'<input type="checkbox" form="decide" name="([^"]+)" value="([^"]+)"', client.get("/contexts").text
    )
    return {unescape(name): value for name, value in boxes}


@pytest.mark.parametrize(("action", "status"), [("approve", "approved"), ("reject", "rejected")])
def test_a_reviewer_decides_on_all_that_are_ticked(
    client: TestClient, filled: Filled, db: Database, author: Author, action: str, status: str
) -> None:
    others = [add(db, author, number) for number in range(3)]
    fields = ticked(client)
    assert len(fields) == 4
    del fields[f"entry:{others[0]}"]
    answer = post(client, "/contexts", "/contexts/decide", action=action, reason="all alike", **fields)
    assert (answer.status_code, answer.headers["location"]) == (303, "/contexts")
    decided = [filled.context.id, *others[1:]]
    assert {get_context(db, "default", context_id).status for context_id in decided} == {status}
    assert get_context(db, "default", others[0]).status == "pending_approval"
    audited = {entry.object_id for entry in list_audit(db, "default")[0] if entry.actor == "console"}
    assert audited == set(decided)


def add(db: Database, author: Author, number: int) -> str:
    context = author.add_context(
        db,
        "default",
        questions=[f"Question {number}?"],
        answer=f"Answer {number}.",
        tags=[],
        is_approved=False,
        actor="test",
        now_s=NOW_S,
    )
    return context.id


def test_what_was_reworded_since_it_was_ticked_is_not_decided_and_the_rest_is(
    client: TestClient, filled: Filled, db: Database, author: Author
) -> None:
    other = add(db, author, 1)
    fields = ticked(client)
    author.edit_context(
        db, "default", other, questions=["Another?"], answer="Otherwise.", tags=[], actor="test", now_s=NOW_S
    )
    answer = post(client, "/contexts", "/contexts/decide", action="approve", **fields)
    assert answer.status_code == 409
    assert f"1 of 2 were decided, not so {other}" in unescape(answer.text)
    assert get_context(db, "default", filled.context.id).is_served
    assert not get_context(db, "default", other).is_served


def test_a_decision_on_many_needs_its_token_an_action_and_something_ticked(
    client: TestClient, filled: Filled, db: Database
) -> None:
    fields = ticked(client)
    assert client.post("/contexts/decide", data={"action": "approve", **fields}).status_code == 403
    assert post(client, "/contexts", "/contexts/decide", action="retire", **fields).status_code == 400
    assert post(client, "/contexts", "/contexts/decide", action="approve").status_code == 400
    assert post(client, "/contexts", "/contexts/decide", action="approve", **{"entry:ctx_none": "1"}).status_code == 409
    assert get_context(db, "default", filled.context.id).status == "pending_approval"
    first = re.search(r"<button[^>]*>", client.get("/contexts").text.partition('action="/contexts/decide"')[2])
    assert first is not None
    assert "disabled" in first.group()


def test_a_reviewer_edits_and_approves_in_one_step(client: TestClient, filled: Filled, db: Database) -> None:
    page = f"/contexts/{filled.context.id}"
    fields = {"questions": "How?\r\n\r\nIn what way?", "answer": "Like this.", "tags": "a, b,", "approve": "1"}
    answer = post(client, page, f"{page}/edit", **fields)
    assert (answer.status_code, answer.headers["location"]) == (303, page)
    row = get_context(db, "default", filled.context.id)
    assert (row.questions, row.answer, row.tags) == (("How?", "In what way?"), "Like this.", ("a", "b"))
    assert (row.status, row.is_served) == ("approved", True)
    post(client, page, f"{page}/edit", questions="How?", answer="Otherwise.", tags="")
    assert get_context(db, "default", filled.context.id).answer == "Otherwise."
    post(client, page, f"{page}/retire", reason="gone")
    assert get_context(db, "default", filled.context.id).status == "retired"
    assert client.get(page).status_code == 200


def test_an_edit_without_an_answer_is_refused_with_its_reason(client: TestClient, filled: Filled) -> None:
    page = f"/contexts/{filled.context.id}"
    answer = post(client, page, f"{page}/edit", questions="How?", answer=" ", tags="")
    assert answer.status_code == 400
    assert "answer" in answer.text


def test_a_person_disables_a_pattern_and_brings_it_back(client: TestClient, filled: Filled, db: Database) -> None:
    page = f"/patterns/{filled.pattern_id}"
    post(client, page, f"{page}/state", state="disabled", reason=f"too loud {ATTACK}")
    assert get_pattern(db, "default", filled.pattern_id).state == "disabled"
    assert "too loud &lt;" in client.get(page).text
    post(client, page, f"{page}/state", state="trial")
    assert get_pattern(db, "default", filled.pattern_id).state == "trial"
    assert post(client, page, f"{page}/state", state="loud").status_code == 400


@pytest.mark.parametrize("kind", ["patterns", "contexts"])
def test_enter_in_a_field_does_not_press_a_button_that_decides(client: TestClient, filled: Filled, kind: str) -> None:
    path = f"/patterns/{filled.pattern_id}" if kind == "patterns" else f"/contexts/{filled.context.id}"
    form = client.get(path).text.partition(f'action="{path}/{"state" if kind == "patterns" else "edit"}"')[2]
    first = re.search(r"<button[^>]*>", form)
    assert first is not None
    assert first[0] == "<button disabled hidden>"


def test_a_source_that_is_gone_is_not_called_a_persons_writing(
    client: TestClient, filled: Filled, db: Database
) -> None:
    path = f"/contexts/{filled.context.id}"
    assert "A person wrote it." in client.get(path).text
    with db.transaction():
        db.execute("UPDATE ai_contexts SET source_chat_id = 'lost'")
    assert "Conversation lost is not there any more." in client.get(path).text


def test_a_person_reviews_an_example_and_acknowledges_an_alert(
    client: TestClient, filled: Filled, db: Database
) -> None:
    answer = post(client, "/datasets/ds-auto-training", f"/examples/{filled.example_id}", intent="greet")
    assert answer.headers["location"] == "/datasets/ds-auto-training"
    ((example,), _) = list_examples(db, "default", "ds-auto-training")
    assert (example.intent, example.needs_review) == ("greet", False)
    post(client, "/", f"/alerts/{filled.alert_id}/acknowledge")
    assert "crash" not in client.get("/").text


def test_a_pattern_shows_the_conversations_behind_it(client: TestClient, filled: Filled) -> None:
    page = f"/patterns/{filled.pattern_id}"
    treated = unescape(client.get(page).text)
    assert 'href="/conversations/talk"' in treated
    assert "thumbs up +1.0" in treated
    assert "a person pinned it" in treated
    assert 'href="/conversations/talk"' not in client.get(f"{page}?arm=control").text


def test_a_filter_stays_from_page_to_page(client: TestClient, filled: Filled) -> None:
    assert "Be brief" in client.get("/patterns?state=pinned&type=query_style&sort=lift").text
    other = client.get("/patterns?state=pinned&type=response_format&sort=lift").text
    assert "Be brief" not in other
    assert 'href="/patterns?state=active&amp;type=response_format&amp;sort=lift"' in other


def test_a_person_goes_back_to_a_generation_once_they_said_so(client: TestClient, filled: Filled, db: Database) -> None:
    page = f"/patterns/{filled.pattern_id}"
    post(client, page, f"{page}/state", state="trial")
    post(client, page, f"{page}/state", state="disabled")
    number = current_number(db, "default")
    shown = f"/generations/{number - 1}"
    assert "A person changed since then" in client.get(shown).text
    post(client, page, f"{page}/state", state="trial")
    back = f"/generations/{number}"
    assert "Would be retired" in client.get(back).text

    assert post(client, back, f"{back}/revert", reason="too loud").status_code == 400
    assert get_pattern(db, "default", filled.pattern_id).state == "trial"
    answer = post(client, back, f"{back}/revert", reason="too loud", confirm="yes")

    assert (answer.status_code, answer.headers["location"]) == (303, "/generations")
    assert get_pattern(db, "default", filled.pattern_id).state == "retired"
    assert f"back to generation {number}: too loud" in client.get("/generations").text
    assert "What it served is served now." in client.get(back).text


@pytest.mark.parametrize("number", ["0", "999", "x", "1" * 30])
def test_a_generation_that_never_was_is_not_found(client: TestClient, filled: Filled, number: str) -> None:
    assert client.get(f"/generations/{number}").status_code == 404
    page = f"/patterns/{filled.pattern_id}"
    assert post(client, page, f"/generations/{number}/revert", confirm="yes").status_code == 404


def test_a_freeze_is_shown_until_its_alert_is_seen(client: TestClient, filled: Filled) -> None:
    assert all("nothing new is tried" in client.get(page).text for page in ("/", "/alerts"))
    answer = post(client, "/alerts", f"/alerts/{filled.alert_id}/acknowledge", **{"from": "alerts"})
    assert answer.headers["location"] == "/alerts"
    assert not any("nothing new is tried" in client.get(page).text for page in ("/", "/alerts"))
    assert "Nothing that you have not seen." in client.get("/alerts").text
    assert "crash" in client.get("/alerts?show=all").text


def test_a_form_without_its_token_changes_nothing(client: TestClient, filled: Filled, db: Database) -> None:
    before = current_number(db, "default")
    for data in ({}, {"csrf_token": ""}, {"csrf_token": "0" * 64}):
        assert client.post(f"/contexts/{filled.context.id}/approve", data=data).status_code == 403
    assert current_number(db, "default") == before


def test_what_is_not_there_is_a_page_that_says_so(client: TestClient) -> None:
    for path in ("/contexts/nope", "/patterns/nope", "/conversations/nope", "/datasets/nope", "/nothing"):
        answer = client.get(path)
        assert (answer.status_code, answer.headers["content-type"]) == (404, "text/html; charset=utf-8")


@pytest.fixture
def keyed(config: Config, db: Database, clock: ManualClock, author: Author) -> Iterator[TestClient]:
    with client_of(dataclasses.replace(config, tenancy=TenancySection(mode="keys")), clock, author) as client:
        yield client


def test_keys_mode_asks_for_an_admin_key_and_leads_back(keyed: TestClient, db: Database) -> None:
    assert keyed.get("/patterns").headers["location"] == "/login?next=%2Fpatterns"
    ensure_tenant(db, "acme", NOW_S)
    key = create_key(db, "acme", name="me", scope="admin", now_s=NOW_S)[1]
    answer = keyed.post("/login", data={"key": key, "next": "/patterns"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/patterns")
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert key not in cookie
    assert "acme" in keyed.get("/patterns").text
    assert post(keyed, "/", "/logout").headers["location"] == "/login"
    assert keyed.get("/patterns").status_code == 303


@pytest.mark.parametrize("scope", ["app", "feedback"])
def test_other_keys_do_not_open_the_console(keyed: TestClient, db: Database, scope: Any) -> None:
    ensure_tenant(db, "acme", NOW_S)
    key = create_key(db, "acme", name="me", scope=scope, now_s=NOW_S)[1]
    assert keyed.post("/login", data={"key": key}).status_code == 403
    assert keyed.post("/login", data={"key": "tut-made-up"}).status_code == 401
    assert keyed.get("/").status_code == 303


@pytest.mark.parametrize("target", ["https://evil.example/", "//evil.example/", "/\\evil.example/", ""])
def test_signing_in_leads_to_this_site_only(keyed: TestClient, db: Database, target: str) -> None:
    ensure_tenant(db, "acme", NOW_S)
    key = create_key(db, "acme", name="me", scope="admin", now_s=NOW_S)[1]
    assert keyed.post("/login", data={"key": key, "next": target}).headers["location"] == "/"


def test_a_session_ends_with_time_with_its_key_and_when_forged(
    keyed: TestClient, db: Database, clock: ManualClock
) -> None:
    ensure_tenant(db, "acme", NOW_S)
    row, key = create_key(db, "acme", name="me", scope="admin", now_s=NOW_S)
    keyed.post("/login", data={"key": key})
    cookie = keyed.cookies["tutelage_session"]
    payload, signature = cookie.split(".")
    for forged in (f"{payload}.{signature[::-1]}", payload, f"x.{signature}", "", "....", f"{payload}.\u00e9"):
        assert keyed.get("/", headers={b"cookie": f"tutelage_session={forged}".encode()}).status_code == 303
    assert keyed.get("/").status_code == 200
    clock.advance(12 * 3600 + 1)
    assert keyed.get("/").status_code == 303
    clock.advance(-3600)
    assert keyed.get("/").status_code == 200
    revoke_key(db, row.id, NOW_S)
    assert keyed.get("/").status_code == 303


def test_one_tenants_session_does_not_see_anothers_things(
    keyed: TestClient, db: Database, config: Config, author: Author
) -> None:
    for tenant_id in ("acme", "other"):
        ensure_tenant(db, tenant_id, NOW_S)
    theirs = fill(db, config, author, "acme")
    keyed.post("/login", data={"key": create_key(db, "other", name="me", scope="admin", now_s=NOW_S)[1]})
    hidden = [page for page in pages(theirs) if page.count("/") > 1]
    assert [page for page in hidden if keyed.get(page).status_code != 404] == []
    assert post(keyed, "/", f"/contexts/{theirs.context.id}/approve").status_code == 404


def test_a_line_averages_the_days_before_it_by_responses() -> None:
    rows = [
        ArmDay(f"2026-11-{day:02}", "treated", n, 0, value, 0, 0, 0, 0)
        for day, n, value in ((1, 1, 1.0), (2, 3, 0.0), (9, 1, 0.5))
    ]
    assert [(point.day.day, point.value) for point in smoothed(rows)] == [(1, 1.0), (2, 0.25), (9, 0.5)]


@pytest.mark.parametrize("value", [-1.0, 0.0, 0.333, 1.0])
def test_a_chart_of_one_day_is_drawn(value: float) -> None:
    chart = satisfaction_chart([ArmDay("2026-11-21", "treated", 1, 0, value, 0, 0, 0, 0)])
    assert chart.startswith("<svg")
    assert "nan" not in chart
    assert satisfaction_chart([]) == ""


def test_intervals_that_stand_below_one_another_share_a_scale() -> None:
    def marks(reach: float) -> list[str]:
        charts = [interval_chart(lift, lift - 0.05, lift + 0.05, reach=reach) for lift in (0.1, 0.5)]
        return [re.findall(r'cx="([0-9.]+)"', chart)[0] for chart in charts]

    assert marks(0.55) == ["139.0", "214.9"]  # zero is at 120: five times as far for five times the lift
    assert marks(0.0) != marks(0.55)


def test_an_interval_that_leaves_out_zero_is_good_or_bad() -> None:
    assert 'class="bar good"' in interval_chart(0.2, 0.1, 0.3)
    assert 'class="bar bad"' in interval_chart(-0.2, -0.3, -0.1)
    assert 'class="bar unsure"' in interval_chart(0.0, -0.1, 0.1)
    assert interval_chart(None, None, None) == ""
