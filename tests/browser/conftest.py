"""Fixtures of the tests in a real browser; they are skipped, with the reason, where none is installed."""

import dataclasses
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from learner.authoring import Author
from store.clock import ManualClock
from store.config import Config, TenancySection, load_config
from store.database import Database
from tests.browser.world import World, make_world, served

NAMES = ("chromium", "chromium-browser", "google-chrome")
AXE = Path(__file__).parents[1] / "node" / "node_modules" / "axe-core" / "axe.min.js"


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """The Chromium of this machine, without a window; without its sandbox, which root may not use."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip(f"no browser: none of {', '.join(NAMES)} is installed")
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="session")
def axe() -> str:
    """The rules of axe-core, as a script."""
    if not AXE.exists():
        pytest.skip("axe-core is not installed: make node, with npm and a network")
    return AXE.read_text(encoding="utf-8")


@pytest.fixture(scope="package")
def author() -> Author:
    return Author(load_config().embedding)


@pytest.fixture
def settings(config: Config) -> Config:
    return dataclasses.replace(config, tenancy=TenancySection(mode="keys"))


@pytest.fixture
def world(db: Database, settings: Config, author: Author) -> World:
    return make_world(db, settings, author)


@pytest.fixture
def address(settings: Config, world: World, author: Author) -> Iterator[str]:
    """The learner's port, served over the world."""
    with served(settings, ManualClock(datetime(2026, 11, 21, 12, 5, tzinfo=UTC)), author) as url:
        yield url


@pytest.fixture
def context(browser: Browser, address: str) -> Iterator[BrowserContext]:
    """A window without script in the pages, for the console needs none."""
    made = browser.new_context(base_url=address, java_script_enabled=False)
    made.set_default_timeout(15_000)
    yield made
    made.close()


@pytest.fixture
def page(context: BrowserContext, world: World) -> Page:
    """A page of somebody who signed in with the admin key."""
    opened = context.new_page()
    sign_in(opened, world.keys["admin"])
    return opened


def sign_in(page: Page, key: str) -> None:
    page.goto("/login")
    page.get_by_label("Key").fill(key)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("heading", name="Overview").wait_for()
