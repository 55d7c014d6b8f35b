"""The console in a real browser: what a person does there, that everybody can use it, and that it fits a phone."""

import json
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, ViewportSize

from store.audit import list_audit
from store.contexts import get_context
from store.database import Database
from store.generations import current_number
from store.patterns import get_pattern
from tests.browser.conftest import sign_in
from tests.browser.world import REFUND, TENANT, World

PHONE: ViewportSize = {"width": 375, "height": 740}
SERIOUS = ("serious", "critical")


def paths(world: World) -> list[str]:
    return [
        "/",
        "/contexts",
        "/contexts?status=approved",
        f"/contexts/{world.waiting_ids[0]}",
        f"/contexts/{world.approved_id}",
        "/contradictions",
        f"/contradictions/{world.contradiction_id}",
        "/patterns",
        "/patterns/new",
        f"/patterns/{world.pattern_id}",
        "/conversations",
        "/conversations?q=question+7",
        "/conversations/talk-4",
        "/conversations/chat-1",
        "/runs",
        "/generations",
        f"/generations/{world.generation}",
        "/alerts?show=all",
        "/audit",
        "/datasets",
        "/datasets/ds-auto-training",
        "/datasets/ds-auto-training?show=all",
        "/nothing-here",
    ]


def actions(db: Database) -> set[str]:
    return {entry.action for entry in list_audit(db, TENANT)[0] if entry.actor.startswith("key_")}


def test_a_person_signs_in_and_out(context: BrowserContext, world: World, db: Database) -> None:
    page = context.new_page()
    page.goto("/patterns")
    assert "/login" in page.url
    page.get_by_label("Key").fill("tut-wrong")
    page.get_by_role("button", name="Sign in").click()
    assert "unknown or revoked" in page.get_by_role("alert").inner_text()
    page.get_by_label("Key").fill(world.keys["admin"])
    page.get_by_role("button", name="Sign in").click()

    page.get_by_role("button", name="Sign out").click()

    page.get_by_role("heading", name="Sign in").wait_for()
    page.goto("/patterns")
    assert "/login" in page.url
    assert actions(db) >= {"console.sign_out", "console.sign_in"}


def test_a_reviewer_approves_with_the_source_beside_it(page: Page, world: World, db: Database) -> None:
    page.get_by_role("link", name="Knowledge").click()
    entry = page.locator("article").filter(has_text="case 0")
    assert entry.locator("mark").inner_text() == REFUND
    answer, source = entry.locator(".answer").bounding_box(), entry.locator("mark").bounding_box()
    assert answer is not None
    assert source is not None
    assert answer["x"] + answer["width"] <= source["x"]  # beside, not below

    entry.get_by_role("button", name="Approve").click()

    page.wait_for_url("**/contexts")
    assert page.locator("article").filter(has_text="case 0").count() == 0
    assert get_context(db, TENANT, world.waiting_ids[0]).is_served
    assert "contexts.approve" in actions(db)


def test_a_reviewer_edits_and_approves(page: Page, world: World, db: Database) -> None:
    page.goto(f"/contexts/{world.waiting_ids[1]}")
    page.get_by_label("Answer").fill("Refunds take four working days.")
    page.get_by_role("button", name="Save and approve").click()
    row = get_context(db, TENANT, world.waiting_ids[1])
    assert (row.answer, row.is_served) == ("Refunds take four working days.", True)
    assert page.get_by_text("served", exact=True).is_visible()


def test_a_reviewer_rejects_with_a_reason(page: Page, world: World, db: Database) -> None:
    page.goto("/contexts")
    entry = page.locator("article").filter(has_text="case 2")
    entry.get_by_label("Reason for rejecting").fill("said too often")
    entry.get_by_role("button", name="Reject").click()
    page.wait_for_url("**/contexts")
    assert get_context(db, TENANT, world.waiting_ids[2]).reject_reason == "said too often"


def test_an_operator_pins_a_pattern_and_goes_back(page: Page, world: World, db: Database) -> None:
    page.get_by_role("link", name="Patterns", exact=True).click()
    page.get_by_role("link", name="Present comparisons").click()
    page.get_by_label("Reason, kept in the history").fill("everybody wants it")
    page.get_by_role("button", name="Pin: always use it").click()
    page.get_by_text("everybody wants it").wait_for()
    assert get_pattern(db, TENANT, world.pattern_id).state == "pinned"
    page.get_by_label("Reason, kept in the history").fill("a doubt")
    page.get_by_role("button", name="Disable").click()
    page.get_by_text("a doubt").wait_for()
    page.get_by_role("button", name="Try it anew").click()
    page.get_by_role("button", name="Disable").wait_for()

    page.goto(f"/generations/{current_number(db, TENANT) - 1}")
    page.get_by_label("Yes, serve again").check()
    page.get_by_role("button", name="Go back to generation").click()

    page.wait_for_url("**/generations")
    assert get_pattern(db, TENANT, world.pattern_id).state == "retired"
    assert "generations.revert" in actions(db)


def test_an_operator_adds_a_pattern_with_the_keyboard_alone(page: Page, db: Database) -> None:
    page.goto("/patterns/new")
    page.keyboard.press("Tab")
    assert page.locator(":focus").inner_text() == "Skip to content"
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")  # the way back to the list
    page.keyboard.press("Tab")
    page.keyboard.type("Name the plan that you recommend.")
    page.get_by_label("Question type").focus()
    page.keyboard.type("comparison")
    page.get_by_role("button", name="Add the pattern").press("Enter")
    page.get_by_role("heading", name="Name the plan that you recommend.").wait_for()
    row = get_pattern(db, TENANT, page.url.rpartition("/")[2])
    assert (row.state, row.conditions.question_type) == ("trial", ("comparison",))


def test_a_reviewer_corrects_an_example(page: Page, world: World, db: Database) -> None:
    page.get_by_role("link", name="Datasets").click()
    page.get_by_role("link", name="ds-auto-training").or_(page.locator("main a")).first.click()
    row = page.locator("form").filter(has=page.locator("input[name=intent]")).first
    row.locator("input[name=intent]").fill("where_is_it")
    row.get_by_role("button").first.click()
    page.wait_for_load_state()
    intents = db.rows("SELECT intent, needs_review FROM examples WHERE tenant_id = :t", {"t": TENANT})
    assert ("where_is_it", 0) in [tuple(one) for one in intents]
    assert any(action.startswith("examples.") for action in actions(db))


def test_a_conversation_says_what_was_put_in_why_and_what_came_back(page: Page) -> None:
    page.goto("/conversations")
    page.get_by_label("Look for").fill("question 12?")
    page.get_by_role("button", name="Search").click()
    page.get_by_role("link", name="question 12?").click()
    facts = page.locator(".facts").inner_text()
    assert "put in at the end of the system text, propensity 0.40" in facts
    assert "Present comparisons as a Markdown table." in facts
    assert "thumbs down -1.0" in facts


def test_a_viewer_finds_nothing_to_press(context: BrowserContext, world: World) -> None:
    page = context.new_page()
    sign_in(page, world.keys["viewer"])
    for path in (f"/contexts/{world.waiting_ids[0]}", f"/patterns/{world.pattern_id}", "/alerts"):
        page.goto(path)
        assert page.locator("main form[method=post]").count() == 0, path


@pytest.fixture(params=["light", "dark"])
def scripted(browser: Browser, address: str, world: World, request: pytest.FixtureRequest) -> Iterator[Page]:
    """A page that tests can run scripts in, signed in, in a light and in a dark scheme."""
    made = browser.new_context(base_url=address, color_scheme=request.param)
    page = made.new_page()
    sign_in(page, world.keys["admin"])
    yield page
    made.close()


def test_no_page_has_a_serious_accessibility_fault(scripted: Page, world: World, axe: str) -> None:
    is_dark = scripted.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    rules = {"runOnly": ["color-contrast"]} if is_dark else {}  # nothing but colours differs
    faults = []
    for path in paths(world):
        scripted.goto(path)
        scripted.evaluate(axe)
        found = scripted.evaluate("rules => axe.run(document, {resultTypes: ['violations'], ...rules})", rules)
        faults += [
            (path, one["id"], one["nodes"][0]["html"][:120], json.dumps(one["nodes"][0]["any"][:1])[:200])
            for one in found["violations"]
            if one["impact"] in SERIOUS
        ]
    assert faults == []


def test_no_page_is_wider_than_a_phone(browser: Browser, address: str, world: World) -> None:
    context = browser.new_context(base_url=address, viewport=PHONE)
    page = context.new_page()
    sign_in(page, world.keys["admin"])
    wide = []
    for path in paths(world):
        page.goto(path)
        wide += [(path, page.evaluate("document.documentElement.scrollWidth"))]
    context.close()
    assert [(path, width) for path, width in wide if width > PHONE["width"]] == []


def test_pages_ask_for_nothing_outside_and_break_no_rule_of_their_policy(
    scripted: Page, world: World, address: str
) -> None:
    asked, said = [], []
    scripted.on("request", lambda request: asked.append(request.url))
    scripted.on("console", lambda message: said.append(message.text))
    for path in paths(world)[:-1]:
        scripted.goto(path)
    assert [url for url in asked if not url.startswith(address)] == []
    assert said == []
