"""What browsers are told: which pages may send signals (CORS), and the script that sends them for a page."""

import base64
import hashlib
from collections.abc import Sequence
from importlib.resources import files
from typing import Final

from proxy.errors import ApiError, Header
from proxy.headers import find

PREFLIGHT_S: Final = 600  # seconds for which a browser may remember what it was allowed; Chromium caps at two hours
_ANY: Final = "*"
_VARY: Final = (b"vary", b"origin")


class Origins:
    """The pages that may send signals, by their origin such as ``https://app.example``; ``*`` stands for every page."""

    def __init__(self, allowed: Sequence[str]) -> None:
        self._is_any = _ANY in allowed
        self._allowed = frozenset(origin.rstrip("/").lower().encode() for origin in allowed)

    def check(self, headers: Sequence[Header]) -> Sequence[Header]:
        """Return what the answer to a request tells the browser; nothing when no browser sent it across origins.

        A browser sends some requests without asking first. So those of other pages are refused here, not only left
        unread: in open mode nothing else would keep a page somewhere from voting.

        Raises:
            ApiError: 403, the page is not among those allowed.
        """
        origin = find(headers, b"origin")
        if origin is None:
            return ()
        if self._is_any or origin.lower() in self._allowed:
            return ((b"access-control-allow-origin", origin), _VARY)
        if origin.partition(b"://")[2] == find(headers, b"host"):
            return ()
        raise ApiError(
            403,
            f"Pages of {origin.decode('latin-1')!r} may not send signals; see allowed_origins in [feedback].",
            code="origin_not_allowed",
        )

    def preflight(self, headers: Sequence[Header], methods: str) -> Sequence[Header]:
        """Return the answer to a browser that asks whether it may send a request.

        Raises:
            ApiError: 403, it may not.
        """
        return (
            *self.check(headers),
            (b"access-control-allow-methods", methods.encode()),
            (b"access-control-allow-headers", b"authorization, content-type"),
            (b"access-control-max-age", b"%d" % PREFLIGHT_S),
        )


class FeedbackScript:
    """``/feedback.js``, as the package brings it.

    Attributes:
        body: the script.
        integrity: its hash, as pages name it in ``integrity="..."``.
    """

    def __init__(self) -> None:
        self.body: Final = files("proxy").joinpath("feedback.js").read_bytes()
        digest = base64.b64encode(hashlib.sha384(self.body).digest()).decode()
        self.integrity: Final = f"sha384-{digest}"

    def headers(self) -> list[Header]:
        """Return the headers of the script. Every page may load it: it holds nothing of any tenant."""
        return [
            (b"content-type", b"text/javascript; charset=utf-8"),
            (b"cache-control", b"public, max-age=300"),
            (b"access-control-allow-origin", b"*"),  # a browser checks the hash only of what it may read
            (b"cross-origin-resource-policy", b"cross-origin"),
            (b"x-content-type-options", b"nosniff"),
        ]


def script_tag(url: str, integrity: str, key: str = "") -> str:
    """Return the line that a page needs.

    >>> print(script_tag("https://chat.example", "sha384-x", "tut-1"))
    <script src="https://chat.example/feedback.js" integrity="sha384-x" crossorigin="anonymous" data-key="tut-1" defer></script>
    """  # noqa: E501
    attribute = f' data-key="{key}"' if key else ""
    return (
        f'<script src="{url.rstrip("/")}/feedback.js" integrity="{integrity}" crossorigin="anonymous"'
        f"{attribute} defer></script>"
    )
