"""Alerts reach a webhook at least once, whatever it does in between, and hold up nobody."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from learner.notifying import Notifier, signature
from store.alerts import list_alerts, raise_alert
from store.clock import ManualClock
from store.config import AlertsSection, Config, load_config
from store.database import Database, open_database
from store.errors import ConfigError
from store.vocabulary import DEFAULT_TENANT

SECRET_ENV = "TUTELAGE_TEST_WEBHOOK_SECRET"


@dataclass
class Webhook:
    """A real server that answers as it is told: a status, or -1 for silence."""

    url: str = ""
    statuses: list[int] = field(default_factory=list)  # of the next requests; 200 afterwards
    bodies: list[bytes] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    release: threading.Event = field(default_factory=threading.Event)


@contextmanager
def serving() -> Iterator[Webhook]:
    webhook = Webhook()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            webhook.bodies.append(self.rfile.read(int(self.headers["content-length"])))
            webhook.headers.append({name.lower(): value for name, value in self.headers.items()})
            status = webhook.statuses.pop(0) if webhook.statuses else 200
            if status < 0:
                webhook.release.wait(10)
                return
            self.send_response(status)
            self.send_header("location", "/elsewhere")
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the base's signature
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    webhook.url = f"http://127.0.0.1:{server.server_port}/hook?token=t0ken"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield webhook
    finally:
        webhook.release.set()
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    with serving() as opened:
        yield opened


def section_of(config: Config, url: str, **changes: Any) -> AlertsSection:
    return replace(config.alerts, webhook_url=url, timeout_s=0.3, **changes)


def notifier_of(config: Config, clock: ManualClock, section: AlertsSection) -> Notifier:
    return Notifier(section, open_database=lambda: open_database(config.store), clock=clock)


def alarm(db: Database, clock: ManualClock, message: str = "satisfaction fell", **detail: Any) -> str:
    return raise_alert(
        db, DEFAULT_TENANT, kind="crash", message=message, detail=detail, run_id=None, now_s=clock.now_s()
    )


def only(db: Database) -> Any:
    (alert,) = list_alerts(db, DEFAULT_TENANT)[0]
    return alert


def test_an_alert_is_delivered_once_with_its_id(
    db: Database, config: Config, clock: ManualClock, webhook: Webhook
) -> None:
    alert_id = alarm(db, clock, z=-4.5)
    notifier = notifier_of(config, clock, section_of(config, webhook.url))

    assert [notifier.look(db), notifier.look(db)] == [1, 0]

    (body,) = map(json.loads, webhook.bodies)
    assert body == {
        "id": alert_id,
        "tenant_id": DEFAULT_TENANT,
        "kind": "crash",
        "message": "satisfaction fell",
        "detail": {"z": -4.5},
        "run_id": None,
        "created_at": only(db).created_at,
    }
    assert webhook.headers[0]["x-tutelage-alert"] == alert_id
    assert "x-tutelage-signature" not in webhook.headers[0]
    assert (only(db).delivered_at, only(db).attempts) == ("2026-11-21T12:00:00.000Z", 1)


def test_the_body_is_signed_together_with_its_time(
    db: Database, config: Config, clock: ManualClock, webhook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SECRET_ENV, "s3cret")
    alarm(db, clock)

    notifier_of(config, clock, section_of(config, webhook.url, webhook_secret_env=SECRET_ENV)).look(db)

    (headers,) = webhook.headers
    expected = signature("s3cret", headers["x-tutelage-timestamp"], webhook.bodies[0])
    assert headers["x-tutelage-signature"] == expected
    assert b"s3cret" not in webhook.bodies[0]


@pytest.mark.parametrize("status", [500, 404, 302, -1], ids=["fails", "unknown", "redirects", "hangs"])
def test_a_webhook_that_does_not_take_it_gets_it_again_later_and_later(
    db: Database, config: Config, clock: ManualClock, webhook: Webhook, status: int
) -> None:
    alarm(db, clock)
    webhook.statuses = [status, status]
    notifier = notifier_of(config, clock, section_of(config, webhook.url, retry_s=30, retry_max_s=3600))

    delivered = []
    for wait_s in (0, 29, 2, 58, 4):
        clock.advance(wait_s)
        delivered.append(notifier.look(db))

    assert delivered == [0, 0, 0, 0, 1]  # tried at 0, 31 and 93 seconds
    assert len(webhook.bodies) == 3
    assert len(set(webhook.bodies)) == 1
    assert only(db).attempts == 3


def test_an_unreachable_webhook_is_tried_until_it_is_given_up(
    db: Database, config: Config, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/hook?token=t0ken"
    alarm(db, clock)
    notifier = notifier_of(config, clock, section_of(config, url, retry_s=60, retry_max_s=3600, give_up_h=24))
    for _ in range(60):
        notifier.look(db)
        clock.advance(1801)

    assert only(db).delivered_at is None
    assert 20 < only(db).attempts < 32
    assert "was not delivered" in caplog.text
    assert "t0ken" not in caplog.text


def test_keys_and_peoples_words_stay_here(db: Database, config: Config, clock: ManualClock, webhook: Webhook) -> None:
    alarm(
        db,
        clock,
        "a run failed: AuthenticationError: Incorrect API key provided: sk-proj-abc123def456, Bearer tut-0123456789ab",
        reason="my name is Ann",
        patterns=["pat-1"],
        z=None,
    )

    notifier_of(config, clock, section_of(config, webhook.url)).look(db)

    body = json.loads(webhook.bodies[0])
    assert body["detail"] == {"patterns": ["pat-1"], "z": None}
    assert "abc123" not in body["message"]
    assert "0123456789" not in body["message"]
    assert body["message"].startswith("a run failed: AuthenticationError")


def test_two_learners_do_not_both_try_at_the_same_time(
    db: Database, config: Config, clock: ManualClock, webhook: Webhook
) -> None:
    alarm(db, clock)
    webhook.statuses = [500]
    section = section_of(config, webhook.url)

    assert [notifier_of(config, clock, section).look(db), notifier_of(config, clock, section).look(db)] == [0, 0]
    assert len(webhook.bodies) == 1


def test_a_webhook_that_hangs_holds_up_neither_writers_nor_shutdown(
    db: Database, config: Config, clock: ManualClock, webhook: Webhook
) -> None:
    webhook.statuses = [-1]
    alarm(db, clock)
    notifier = notifier_of(config, clock, replace(section_of(config, webhook.url), timeout_s=30.0))
    notifier.start()
    eventually(lambda: len(webhook.bodies) == 1)

    began = time.monotonic()
    alarm(db, clock)
    notifier.stop()

    assert time.monotonic() - began < 5
    webhook.release.set()


def test_the_thread_delivers_what_comes_while_it_runs(
    db: Database, config: Config, clock: ManualClock, webhook: Webhook
) -> None:
    notifier = notifier_of(config, clock, section_of(config, webhook.url))
    notifier.start()
    alarm(db, clock)

    eventually(lambda: only(db).delivered_at is not None)
    notifier.stop()


def test_without_a_url_nothing_is_tried(db: Database, config: Config, clock: ManualClock) -> None:
    alarm(db, clock)
    notifier = notifier_of(config, clock, config.alerts)
    notifier.start()
    notifier.stop()

    assert only(db).attempts == 0


def test_a_url_of_another_kind_is_refused_without_showing_it() -> None:
    with pytest.raises(ConfigError, match=r"alerts\.webhook_url must be an http\(s\) URL, or empty$"):
        load_config(None, {"alerts": {"webhook_url": "file:///etc/passwd"}})


def eventually(look: Callable[[], bool]) -> None:
    waited = threading.Event()
    for _ in range(500):
        if look():
            return
        waited.wait(0.01)
    raise AssertionError("did not happen")
