"""``make screenshots``: a picture of every page over the demo's data, into docs/screenshots/.

``python -m tests.browser.screenshots [--directory FOLDER]``: the folder of an earlier ``tutelage demo`` is used.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

from learner.authoring import Author
from store.clock import ManualClock, parse_iso
from store.config import Config, load_config
from store.database import Database, open_database
from store.vocabulary import DEFAULT_TENANT
from tests.browser.world import furnish, served

FOLDER = Path(__file__).parents[2] / "docs" / "screenshots"
WIDE = {"width": 1240, "height": 300}
PHONE = {"width": 375, "height": 300}
MAX_HEIGHT = 1400  # pixels of a picture
COLOURS = 128  # of its palette: a page is text on few colours


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.browser.screenshots", description=__doc__)
    parser.add_argument("--directory", type=Path, help="of a demo that ran already")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tutelage-screenshots-") as name:
        directory = arguments.directory or Path(name)
        if not (directory / "tutelage.db").exists():
            subprocess.run([sys.executable, "-m", "tutelage", "demo", "--directory", str(directory)], check=True)
        copy = Path(name) / "copy.db"
        with open_database(load_config(directory / "config.toml").store) as db:
            db.execute("VACUUM INTO :copy", {"copy": str(copy)})
        take(load_config(None, {"store": {"url": f"sqlite:///{copy}"}}))


def take(config: Config) -> None:
    """Take the pictures of the store that *config* names."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    author = Author(config.embedding)
    with open_database(config.store) as db:
        newest = parse_iso(db.value("SELECT max(created_at) FROM responses"))
        furnish(db, author, DEFAULT_TENANT, newest)  # what a demo without a person leaves out
        paths = pages_of(db)
    clock = ManualClock(datetime.fromtimestamp(newest, UTC))
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    with served(config, clock, author) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        for name, path in paths.items():
            shoot(browser, address + path, FOLDER / f"{name}.png", WIDE, "light")
        for name in ("overview", "pattern"):
            shoot(browser, address + paths[name], FOLDER / f"{name}-dark.png", WIDE, "dark")
        for name in ("overview", "review"):
            shoot(browser, address + paths[name], FOLDER / f"{name}-phone.png", PHONE, "light")
        browser.close()


def pages_of(db: Database) -> dict[str, str]:
    """Return every page by the name of its picture, of each kind of thing one with much to see."""

    def one(sql: str) -> str:
        return quote(str(db.value(sql, {"tenant_id": DEFAULT_TENANT})), safe="")

    pattern = one(
        """
        SELECT id FROM learned_patterns WHERE tenant_id = :tenant_id
        ORDER BY state = 'active' DESC, signal_count DESC LIMIT 1
        """
    )
    contradiction = one("SELECT id FROM contradictions WHERE tenant_id = :tenant_id LIMIT 1")
    waiting = one("SELECT id FROM ai_contexts WHERE tenant_id = :tenant_id AND status = 'pending_approval' LIMIT 1")
    talk = one(
        """
        SELECT r.conversation_id FROM response_feedback AS f JOIN responses AS r ON r.id = f.response_id
        JOIN injections AS i ON i.response_id = r.id AND i.kind = 'pattern' AND i.treated = 1
        WHERE r.tenant_id = :tenant_id AND f.signal_type = 'thumbs_up' ORDER BY r.seq DESC LIMIT 1
        """
    )
    return {
        "overview": "/",
        "review": "/contexts",
        "context": f"/contexts/{waiting}",
        "contradictions": "/contradictions",
        "contradiction": f"/contradictions/{contradiction}",
        "patterns": "/patterns?sort=signals",
        "pattern": f"/patterns/{pattern}",
        "new-pattern": "/patterns/new",
        "conversations": "/conversations",
        "conversation": f"/conversations/{talk}",
        "runs": "/runs",
        "generations": "/generations",
        "generation": "/generations/1",
        "alerts": "/alerts?show=all",
        "audit": "/audit",
        "datasets": "/datasets",
        "dataset": "/datasets/ds-auto-training",
        "sign-in": "/login",
    }


def shoot(browser: Browser, url: str, path: Path, viewport: dict[str, int], scheme: str) -> None:
    """Write the picture of *url*, as high as the page but not higher than ``MAX_HEIGHT``, with few colours."""
    page = browser.new_page(viewport=viewport, color_scheme=scheme)  # type: ignore[arg-type]
    page.goto(url)
    height = min(int(page.evaluate("document.documentElement.scrollHeight")), MAX_HEIGHT)
    page.set_viewport_size({"width": viewport["width"], "height": height})
    page.screenshot(path=path)
    page.close()
    with Image.open(path) as picture:
        picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)


if __name__ == "__main__":
    main()
