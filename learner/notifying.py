"""Tells a webhook of every alert: at least once, signed, in a thread of its own that no run waits for."""

import hashlib
import hmac
import http.client
import json
import logging
import os
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any, Final

from learner.watch import Watch
from store.alert_delivery import PendingAlert, claim_pending, mark_delivered
from store.clock import Clock
from store.config import AlertsSection
from store.database import Database
from store.ids import new_id

log = logging.getLogger(__name__)

POLL_S: Final = 1.0  # seconds between looks for new alerts
BATCH: Final = 20
KEY: Final = re.compile(
    r"(?i)\b(?:(?:sk|pk|rk|tut|key|xox[a-z]|gh[a-z])[-_]|bearer\s+|api[-_ ]?key\W{1,3})[\w.\-*]{6,}"
)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirected POST would arrive as a GET without its body: it counts as refused."""

    def redirect_request(self, *_: Any) -> None:
        return None


class Notifier:
    """Delivers what waits, again and again between ``start`` and ``stop``."""

    def __init__(self, section: AlertsSection, *, open_database: Callable[[], Database], clock: Clock) -> None:
        self._section = section
        self._clock = clock
        self._secret = os.environ.get(section.webhook_secret_env, "") if section.webhook_secret_env else ""
        self._opener = urllib.request.build_opener(_NoRedirect)
        self._watch = Watch(
            "alerts", self.look, open_database=open_database, poll_s=POLL_S, problem="alerts could not be looked for"
        )

    def start(self) -> None:
        """Begin in a thread; nothing begins without ``[alerts] webhook_url``."""
        if not self._section.webhook_url:
            return
        if self._section.webhook_secret_env and not self._secret:
            log.warning("alerts go out unsigned: %s is not set", self._section.webhook_secret_env)
        self._watch.start()

    def stop(self) -> None:
        """Let no other delivery begin, and wait a little for the one under way: cut, it comes again."""
        self._watch.stop()

    def look(self, db: Database) -> int:
        """Try to deliver what is due and return how many arrived; no transaction is open meanwhile."""
        due = claim_pending(
            db,
            now_s=self._clock.now_s(),
            retry_s=self._section.retry_s,
            retry_max_s=self._section.retry_max_s,
            timeout_s=self._section.timeout_s,
            give_up_h=self._section.give_up_h,
            limit=BATCH,
        )
        n_delivered = 0
        for alert in due:
            if self._watch.is_over():
                break
            problem = self._send(alert)
            if problem is None:
                mark_delivered(db, alert.id, now_s=self._clock.now_s())
                n_delivered += 1
            else:
                log.warning("alert %s was not delivered (try %d): %s", alert.id, alert.attempts, problem)
        return n_delivered

    def _send(self, alert: PendingAlert) -> str | None:
        """Return None when the webhook took the alert, else what went wrong; never the URL, which may hold a token."""
        body = json.dumps(body_of(alert), ensure_ascii=False).encode()
        sent_at = str(int(self._clock.now_s()))
        headers = {
            "content-type": "application/json",
            "user-agent": "tutelage",
            "x-tutelage-alert": alert.id,
            "x-tutelage-delivery": new_id("dlv", self._clock.now_s()),
            "x-tutelage-timestamp": sent_at,
        }
        if self._secret:
            headers["x-tutelage-signature"] = signature(self._secret, sent_at, body)
        request = urllib.request.Request(self._section.webhook_url, data=body, headers=headers, method="POST")  # noqa: S310  # config.py checks that it is http(s)
        try:
            with self._opener.open(request, timeout=self._section.timeout_s):
                return None
        except urllib.error.HTTPError as exc:
            exc.close()
            return f"status {exc.code}"
        except (OSError, http.client.HTTPException) as exc:
            return type(exc).__name__ if not isinstance(exc, urllib.error.URLError) else f"unreachable: {exc.reason}"


def signature(secret: str, timestamp: str, body: bytes) -> str:
    """Return what ``x-tutelage-signature`` holds: HMAC-SHA256 of ``timestamp.body``.

    >>> signature("secret", "1", b"{}")[:14]
    'sha256=1122767'
    """
    mac = hmac.new(secret.encode(), timestamp.encode() + b"." + body, hashlib.sha256)
    return f"sha256={mac.hexdigest()}"


def body_of(alert: PendingAlert) -> Mapping[str, Any]:
    """Return what the webhook gets: no keys, and of the details only figures, truths and ids of patterns."""
    detail = {name: value for name, value in alert.detail.items() if _is_harmless(name, value)}
    return {
        "id": alert.id,
        "tenant_id": alert.tenant_id,
        "kind": alert.kind,
        "message": KEY.sub("[key]", alert.message),
        "detail": detail,
        "run_id": alert.run_id,
        "created_at": alert.created_at,
    }


def _is_harmless(name: str, value: object) -> bool:
    return value is None or isinstance(value, bool | int | float) or (name == "patterns" and isinstance(value, list))
