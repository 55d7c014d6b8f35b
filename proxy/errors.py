"""Errors of the request path, and the one place that words them for clients.

ProxyError
├── ApiError                     what a client sees: a status and the error body of its API
├── UpstreamError                the upstream did not answer as it should
│   ├── UpstreamUnreachableError     no connection, or it went away before the first byte of the reply
│   ├── UpstreamTimeoutError         no connection, no first byte or not the whole reply in the configured time
│   ├── UpstreamCutError             the connection went away in the middle of the reply
│   └── UpstreamRestingError         it failed so often that it is not asked for a while
└── ClientGoneError              nobody waits for the reply any more
"""

import math
from collections.abc import Sequence
from typing import Final

import orjson

Header = tuple[bytes, bytes]

JSON_TYPE: Final = (b"content-type", b"application/json")


class ProxyError(Exception):
    """Base of all errors of the request path."""


class ApiError(ProxyError):
    """An answer of our own with an error status; *message* goes to the client as it stands."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str = "invalid_request_error",  # noqa: A002 - the field's name in OpenAI's error body
        param: str | None = None,
        code: str | None = None,
        headers: Sequence[Header] = (),
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.type = type
        self.param = param
        self.code = code
        self.headers = tuple(headers)


class UpstreamError(ProxyError):
    """The upstream did not answer as it should."""


class UpstreamUnreachableError(UpstreamError):
    """There is no connection, or it went away before the first byte of the reply."""


class UpstreamTimeoutError(UpstreamError):
    """No connection, no first byte of a reply or not all of it came in the configured time."""


class UpstreamCutError(UpstreamError):
    """The connection went away in the middle of the reply."""


class UpstreamRestingError(UpstreamError):
    """The upstream failed so often that it is not asked until *retry_after_s* seconds have passed."""

    def __init__(self, retry_after_s: float) -> None:
        super().__init__("it failed several times in a row and rests")
        self.retry_after_s = retry_after_s


class ClientGoneError(ProxyError):
    """Nobody waits for the reply any more."""


def error_body(error: ApiError) -> bytes:
    """Return the body in OpenAI's shape, all four fields always there.

    >>> error_body(ApiError(404, "no such model", param="model", code="model_not_found")).decode()
    '{"error":{"message":"no such model","type":"invalid_request_error","param":"model","code":"model_not_found"}}'
    """
    return orjson.dumps({"error": _openai_fields(error)})


def chat_stream_error(error: ApiError) -> bytes:
    """Return the event that ends a stream of chat chunks with an error: clients look for ``error`` in the data."""
    return b"data: %b\n\n" % error_body(error)


def responses_stream_error(error: ApiError) -> bytes:
    """Return the event that ends a stream of the Responses API with an error.

    The reference documents code, message and param beside the type, the API itself sends them under ``error``, and
    OpenAI's clients raise on that one alone: clients of either form find both.
    """
    fields = _openai_fields(error)
    event = {
        "type": "error",
        "sequence_number": 0,
        "code": fields["code"] or fields["type"],
        "message": fields["message"],
        "param": fields["param"],
        "error": fields,
    }
    return b"event: error\ndata: %b\n\n" % orjson.dumps(event)


# https://platform.claude.com/docs/en/api/errors; any other 4xx is an invalid_request_error there, any other 5xx ours.
_ANTHROPIC_TYPES: Final = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}


def anthropic_error_body(error: ApiError) -> bytes:
    """Return the body in Anthropic's shape.

    >>> anthropic_error_body(ApiError(413, "too large")).decode()
    '{"type":"error","error":{"type":"request_too_large","message":"too large"}}'
    """
    default = "invalid_request_error" if error.status < 500 else "api_error"
    kind = _ANTHROPIC_TYPES.get(error.status, default)
    return orjson.dumps({"type": "error", "error": {"type": kind, "message": _storable(error.message)}})


def anthropic_stream_error(error: ApiError) -> bytes:
    """Return the event that ends a stream of the Messages API with an error."""
    return b"event: error\ndata: %b\n\n" % anthropic_error_body(error)


def _openai_fields(error: ApiError) -> dict[str, str | None]:
    param = error.param and _storable(error.param)
    return {"message": _storable(error.message), "type": error.type, "param": param, "code": error.code}


def _storable(text: str) -> str:
    # A lone surrogate out of the client's JSON may stand in a message.
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def invalid_api_key(message: str) -> ApiError:
    """Return the 401 of a missing or wrong key."""
    return ApiError(401, message, code="invalid_api_key", headers=((b"www-authenticate", b"Bearer"),))


def forbidden(message: str) -> ApiError:
    """Return the 403 of a key whose scope does not reach this far."""
    return ApiError(403, message, type="insufficient_permissions", code="insufficient_permissions")


def not_found(path: str) -> ApiError:
    """Return the 404 of a path that nobody serves."""
    return ApiError(404, f"Unknown path: {path}", code="not_found")


def only_chat(upstream: str, path: str) -> ApiError:
    """Return the 404 of a path that the model's upstream, reached through litellm, does not serve."""
    return ApiError(
        404,
        f"Upstream '{upstream}' is reached through litellm and serves POST /v1/chat/completions alone; {path} needs "
        'an upstream that speaks this API itself (provider "openai").',
        code="not_found",
    )


def model_not_found(model: str) -> ApiError:
    """Return the 404 of a model that no configured upstream serves."""
    return ApiError(
        404, f"The model `{model}` does not exist or no upstream serves it.", param="model", code="model_not_found"
    )


def body_too_large(max_body_mb: float) -> ApiError:
    """Return the 413 of a chat body beyond the configured size."""
    return ApiError(413, f"The request body is larger than {max_body_mb:g} MB.", code="request_too_large")


def internal_error() -> ApiError:
    """Return the 500 of a fault of ours; what it was stands in the log alone."""
    return ApiError(500, "The proxy failed.", type="server_error", code="internal_error")


def unavailable(message: str, code: str) -> ApiError:
    """Return a 503: nothing is wrong with the request, it may be tried again."""
    return ApiError(503, message, type="server_error", code=code, headers=((b"retry-after", b"1"),))


def upstream_failure(error: UpstreamError, upstream: str) -> ApiError:
    """Return what a client sees when *upstream* failed: 502, 504 for a timeout, 503 at rest.

    In the middle of a stream it is the last event.
    """
    if isinstance(error, UpstreamRestingError):
        retry_after = (b"retry-after", b"%d" % max(math.ceil(error.retry_after_s), 1))
        return ApiError(
            503,
            f"Upstream {upstream!r} failed several times in a row; it is not asked for a while.",
            type="upstream_error",
            code="upstream_resting",
            headers=(retry_after,),
        )
    if isinstance(error, UpstreamTimeoutError):
        return ApiError(
            504, f"Upstream {upstream!r} did not answer in time.", type="upstream_error", code="upstream_timeout"
        )
    return ApiError(502, f"Upstream {upstream!r}: {error}", type="upstream_error", code="upstream_unreachable")
