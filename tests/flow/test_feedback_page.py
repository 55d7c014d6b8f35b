"""``feedback.js`` in a real page in Chromium: each signal arrives, once, with the right weight."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.flow.product import Product, eventually, free_port
from tests.upstream import Upstream

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
EXAMPLE = Path(__file__).parents[2] / "examples" / "chat" / "app.py"
DWELL_S = 1.0
FOLLOW_UP_S = 30

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def page_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory, shared_upstream: Upstream, page_port: int) -> Iterator[Product]:
    """A running proxy that takes signals of the example page, from keys, and counts reading after a second."""
    settings: dict[str, dict[str, Any]] = {
        "feedback": {"allowed_origins": [f"http://127.0.0.1:{page_port}"], "dwell_threshold_s": DWELL_S},
        "tenancy": {"mode": "keys"},
    }
    folder = tmp_path_factory.mktemp("page")
    with Product(
        folder, shared_upstream.base_url, settings, environment={"UPSTREAM_KEY": "sk-up"}, api_key_env="UPSTREAM_KEY"
    ) as product:
        product.start("proxy")
        yield product


@pytest.fixture(scope="module")
def page_url(proxied: Product, page_port: int) -> Iterator[str]:
    """The example's server, with keys of its own for the app and for the page."""
    app_key, page_key = (
        proxied.command("keys", "create", "--scope", scope).stdout.strip() for scope in ("app", "feedback")
    )
    url = f"http://127.0.0.1:{page_port}"
    options = ["--proxy", proxied.proxy_url, "--model", "gpt-test", "--key", page_key, "--port", str(page_port)]
    with subprocess.Popen(
        [sys.executable, str(EXAMPLE), *options],
        env={**proxied.child_environment(), "OPENAI_API_KEY": app_key},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as server:
        eventually(lambda: _answers(url), 30)
        yield url
        server.terminate()


def _answers(url: str) -> bool:
    try:
        return httpx.get(url).is_success
    except httpx.TransportError:
        return False


@pytest.fixture
def page(browser: Browser, page_url: str) -> Iterator[Page]:
    """The page, opened; whatever it says in its console fails the test."""
    context = browser.new_context()
    opened = context.new_page()
    said: list[str] = []
    opened.on("console", lambda message: said.append(message.text))
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.goto(page_url)
    yield opened
    context.close()
    assert said == []


def ask(page: Page, question: str) -> str:
    """Ask through the page and return the id that the answer is marked with."""
    answers = page.locator("[data-tutelage-response]")
    n_before = answers.count()
    page.get_by_label("Your question").fill(question)
    page.get_by_label("Your question").press("Enter")
    expect(answers).to_have_count(n_before + 1)
    return answers.last.get_attribute("data-tutelage-response") or ""


def signals(proxied: Product, response_id: str) -> dict[str, float]:
    rows = proxied.rows(
        """
        SELECT signal_type, weight FROM response_feedback
        JOIN responses ON responses.id = response_id WHERE upstream_id = :id
        """,
        id=response_id,
    )
    return {row["signal_type"]: row["weight"] for row in rows}


def arrives(proxied: Product, response_id: str, wanted: dict[str, float]) -> bool:
    return bool(eventually(lambda: signals(proxied, response_id) == wanted))


def test_a_thumb_is_one_vote_that_can_be_turned_and_taken_back(page: Page, proxied: Product) -> None:
    response_id = ask(page, "How do I pay?")
    up, down = page.get_by_role("button", name="Good answer"), page.get_by_role("button", name="Bad answer")
    up.click()
    assert arrives(proxied, response_id, {"thumbs_up": 1.0})
    expect(up).to_have_attribute("aria-pressed", "true")
    down.click()
    assert arrives(proxied, response_id, {"thumbs_down": -1.0})
    expect(up).to_have_attribute("aria-pressed", "false")
    down.click()
    assert arrives(proxied, response_id, {})
    expect(down).to_have_attribute("aria-pressed", "false")


def test_buttons_work_from_the_keyboard(page: Page, proxied: Product) -> None:
    response_id = ask(page, "How do I pay by card?")
    page.get_by_role("button", name="Good answer").focus()
    page.keyboard.press("Space")
    assert arrives(proxied, response_id, {"thumbs_up": 1.0})


def test_text_that_is_copied_counts_once(page: Page, proxied: Product) -> None:
    response_id = ask(page, "How do I copy?")
    page.locator("[data-tutelage-response]").click(click_count=3)
    for _ in range(2):
        page.keyboard.press("Control+C")
    assert arrives(proxied, response_id, {"copy": 0.3})
    assert len(proxied.rows("SELECT 1 FROM response_feedback WHERE signal_type = 'copy'")) == 1


def test_a_question_soon_after_an_answer_is_a_follow_up_of_that_answer(page: Page, proxied: Product) -> None:
    first = ask(page, "How do I export?")
    second = ask(page, "And as CSV?")
    assert arrives(proxied, first, {"follow_up": -0.2})
    assert signals(proxied, second) == {}


def test_a_question_asked_later_is_not(page: Page, proxied: Product) -> None:
    page.clock.install()
    first = ask(page, "How do I import?")
    page.clock.fast_forward((FOLLOW_UP_S + 1) * 1000)
    ask(page, "Something else: how do I leave?")
    page.get_by_role("button", name="Good answer").last.click()
    eventually(lambda: proxied.rows("SELECT 1 FROM response_feedback WHERE signal_type = 'thumbs_up'"))
    assert "follow_up" not in signals(proxied, first)


def test_reading_long_is_told_when_the_page_is_left(page: Page, proxied: Product) -> None:
    response_id = ask(page, "How long does it take?")
    page.clock.install()
    page.bring_to_front()
    page.clock.run_for(70_000)
    page.goto("about:blank")
    eventually(lambda: "dwell_time" in signals(proxied, response_id))
    row = proxied.row("SELECT weight, value FROM response_feedback WHERE signal_type = 'dwell_time'")
    assert row["weight"] == -0.1
    assert 60 < row["value"] < 80


def test_a_page_elsewhere_is_not_heard(browser: Browser, proxied: Product) -> None:
    context = browser.new_context()
    elsewhere = context.new_page()
    elsewhere.goto(f"{proxied.proxy_url.replace('127.0.0.1', 'localhost')}/healthz")
    send = "([url, body]) => fetch(url, {method: 'POST', body}).then((reply) => reply.status, String)"
    answer = elsewhere.evaluate(send, [f"{proxied.proxy_url}/v1/feedback", '{"response_id": "x", "signal": "copy"}'])
    context.close()
    assert str(answer).startswith("TypeError")
