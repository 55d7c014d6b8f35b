"""What handlers get of a request, and how they read its fields: a wrong one becomes a 400 that names it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import msgspec
from starlette.requests import ClientDisconnect, Request

from learner.api_errors import ApiError, bad_field
from learner.rights import Role
from learner.services import Services
from store.database import Database

MAX_LIMIT = 1000
DEFAULT_LIMIT = 100
# Of a body that is too large, taken and dropped: many clients look for an answer only after their last byte.
MAX_DISCARDED_BYTES = 100_000_000

Word = TypeVar("Word", bound=str)


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks: the tenant and the role come from the key alone; ``actor`` is what audit_log says."""

    tenant_id: str
    actor: str
    role: Role


@dataclass(frozen=True, slots=True)
class Call:
    """One authenticated request of the admin API."""

    services: Services
    db: Database
    principal: Principal
    path: Mapping[str, str]
    query: Mapping[str, str]
    body: Mapping[str, Any]

    @property
    def tenant_id(self) -> str:
        return self.principal.tenant_id

    @property
    def actor(self) -> str:
        return self.principal.actor

    @property
    def now_s(self) -> float:
        return self.services.clock.now_s()

    @property
    def limit(self) -> int:
        """Return the page size asked for.

        Raises:
            ApiError: it is no number from 1 to 1000.
        """
        return self.count("limit", DEFAULT_LIMIT, at_most=MAX_LIMIT)

    @property
    def cursor(self) -> str | None:
        return self.query.get("cursor") or None

    def count(self, field: str, default: int, *, at_most: int) -> int:
        """Return the query field *field* as a number, *default* when it is not given.

        Raises:
            ApiError: it is no number from 1 to *at_most*.
        """
        text = self.query.get(field, str(default))
        if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= at_most:
            raise bad_field(field, f"must be a number from 1 to {at_most}, not {text!r}")
        return int(text)

    def choice(self, field: str, choices: Iterable[Word]) -> Word | None:
        """Return the query field *field*, None when it is not given.

        Raises:
            ApiError: it is none of *choices*.
        """
        return one_of(field, self.query.get(field) or None, choices)


def generation_number(text: str) -> int:
    """Return the generation's number in a path.

    Raises:
        ApiError: it is none (404).
    """
    if not text.isascii() or not text.isdecimal() or len(text) > 18:
        raise ApiError(404, f"no generation {text!r}", code="not_found")
    return int(text)


def page(rows: tuple[list[Any], str | None]) -> dict[str, Any]:
    """Return one page of a list as the API writes it."""
    return {"data": rows[0], "next_cursor": rows[1]}


async def read_bytes(request: Request, max_bytes: int) -> bytes:
    """Return the request's body.

    Raises:
        ApiError: it is larger than *max_bytes* (413).
    """
    chunks: list[bytes] = []
    size = 0
    try:
        async for chunk in request.stream():
            size += len(chunk)
            if size <= max_bytes:
                chunks.append(chunk)
            elif size > max_bytes + MAX_DISCARDED_BYTES:
                break
    except ClientDisconnect as exc:
        raise ApiError(400, "the connection closed before the body was complete") from exc
    if size > max_bytes:
        raise ApiError(413, f"the body is larger than {max_bytes:,} bytes", code="body_too_large")
    return b"".join(chunks)


async def read_object(request: Request, max_bytes: int) -> Mapping[str, Any]:
    """Return the JSON object in the request's body; an empty body is an empty object.

    Raises:
        ApiError: too large (413), not declared as JSON (415), or not a JSON object (400).
    """
    body = await read_bytes(request, max_bytes)
    if not body:
        return {}
    # A form that another site posts cannot name this type, so the check also keeps such posts out.
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise ApiError(415, f"content-type must be application/json, not {media_type!r}", code="unsupported_media_type")
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise ApiError(400, f"the body is not valid JSON: {exc}", code="invalid_json") from exc
    if not isinstance(value, dict):
        raise ApiError(400, "the body must be a JSON object", code="invalid_json")
    return value


def known_fields(body: Mapping[str, Any], names: Iterable[str]) -> None:
    """Do nothing when *body* holds no other fields than *names*.

    Raises:
        ApiError: it does; the message names the first.
    """
    known = tuple(names)
    for field in body:
        if field not in known:
            raise bad_field(field, f"is not a field here; known are {', '.join(known)}")


def text(body: Mapping[str, Any], field: str, *, required: bool = False) -> str | None:
    """Return a text, None when it is missing and not *required*.

    Raises:
        ApiError: it is no text, or required and missing or empty.
    """
    value = body.get(field)
    if value is None and not required:
        return None
    if not isinstance(value, str) or (required and not value.strip()):
        raise bad_field(field, "must be a text that is not empty" if required else "must be a text")
    return value


def required_text(body: Mapping[str, Any], field: str) -> str:
    """Return a text that must be there.

    Raises:
        ApiError: it is missing, empty or no text.
    """
    return cast("str", text(body, field, required=True))


def texts(body: Mapping[str, Any], field: str) -> list[str] | None:
    """Return a list of texts, None when it is missing.

    Raises:
        ApiError: it is something else.
    """
    value = body.get(field)
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise bad_field(field, "must be a list of texts")
    return value


def flag(body: Mapping[str, Any], field: str) -> bool | None:
    """Return true or false, None when it is missing.

    Raises:
        ApiError: it is something else.
    """
    value = body.get(field)
    if value is not None and not isinstance(value, bool):
        raise bad_field(field, "must be true or false")
    return value


def number(body: Mapping[str, Any], field: str) -> int | None:
    """Return a whole number, None when it is missing.

    Raises:
        ApiError: it is something else.
    """
    value = body.get(field)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
        raise bad_field(field, "must be a whole number")
    return value


def one_of(field: str, value: Any, choices: Iterable[Word]) -> Word | None:
    """Return *value* as one of *choices*, None when it is None.

    Raises:
        ApiError: it is none of them.
    """
    words = tuple(choices)
    if value is not None and value not in words:
        raise bad_field(field, f"must be one of {', '.join(words)}, not {value!r}")
    return cast("Word | None", value)
