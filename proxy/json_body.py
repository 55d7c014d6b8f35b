"""A JSON body decoded where it lies, in spite of the few things that JSON forbids and clients send."""

import re
from collections.abc import Callable
from typing import Any, Final, TypeVar

import msgspec

from proxy.errors import ApiError

Parsed = TypeVar("Parsed")


class _Named(msgspec.Struct, gc=False):
    model: Any = None


_named_decoder: Final = msgspec.json.Decoder(_Named)


def model_of(body: bytes) -> str | None:
    """Return the model that *body* names, of any API; None without one. Whatever else is wrong in it is not looked at.

    >>> model_of(b'{"input": [1], "model": "m"}'), model_of(b'{"model": 1}'), model_of(b"no JSON")
    ('m', None, None)
    """
    try:
        model = _named_decoder.decode(body).model
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return (model or None) if isinstance(model, str) else None


def parse_body(
    body: bytes, parse: Callable[[bytes, bytes], Parsed], invalid: Callable[[dict[str, Any]], ApiError]
) -> Parsed:
    """Return what *parse* makes of *body* and its source: the body itself, or its usual form when that does not decode.

    Args:
        body: as the client sent it.
        parse: raises msgspec's errors for what it cannot read.
        invalid: returns what is wrong with an object that is JSON but not what *parse* wants.

    Raises:
        ApiError: 400: not JSON, not an object, or what *invalid* says.
    """
    try:
        return _parse(body, body, parse)
    except msgspec.ValidationError as exc:
        raise _explained(body, invalid) from exc
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        return _parse_unusual(body, parse, invalid, exc)


def _parse(body: bytes, source: bytes, parse: Callable[[bytes, bytes], Parsed]) -> Parsed:
    if not source.isascii():
        source.decode()  # raw parts are not checked by the decoder
    return parse(body, source)


def _parse_unusual(
    body: bytes,
    parse: Callable[[bytes, bytes], Parsed],
    invalid: Callable[[dict[str, Any]], ApiError],
    cause: Exception,
) -> Parsed:
    source = usual_form(body)
    try:
        return _parse(body, source, parse)
    except msgspec.ValidationError as exc:
        raise _explained(source, invalid) from exc
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise _not_json(cause) from cause


def _explained(body: bytes, invalid: Callable[[dict[str, Any]], ApiError]) -> ApiError:
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError) as exc:  # wrong at its beginning, broken further on
        return _not_json(exc)
    return invalid(value) if isinstance(value, dict) else ApiError(400, "The request body must be a JSON object.")


def _not_json(cause: Exception) -> ApiError:
    return ApiError(400, f"The request body is not valid JSON: {cause}", code="invalid_json")


_UNUSUAL: Final = re.compile(
    rb"""
    (?P<pair>\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})
    |(?P<lone>\\u[dD][89a-fA-F][0-9a-fA-F]{2})
    |(?P<escape>\\.)
    """,
    re.VERBOSE | re.DOTALL,
)
# Possessive, and a string without its end is one too: else a broken body is searched again from each of its quotes.
_STRING_OR_CONSTANT: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?+|NaN|-?Infinity', re.DOTALL)


def usual_form(body: bytes) -> bytes:
    r"""Return *body* at equal length with lone surrogates as U+FFFD and NaN and Infinity (Python writes them) as 0.

    >>> usual_form(rb'{"a": "\ud83d", "b": NaN}')
    b'{"a": "\\ufffd", "b": 0  }'
    """

    def replace_constant(match: re.Match[bytes]) -> bytes:
        text = match[0]
        return text if text.startswith(b'"') else b"0".ljust(len(text))

    return _STRING_OR_CONSTANT.sub(replace_constant, whole_characters(body))


def whole_characters(body: bytes) -> bytes:
    r"""Return *body* at equal length with lone surrogates as U+FFFD.

    >>> whole_characters(rb'{"a": "\ud83d \ud83d\ude00"}')
    b'{"a": "\\ufffd \\ud83d\\ude00"}'
    """

    def replace_escape(match: re.Match[bytes]) -> bytes:
        return rb"\ufffd" if match["lone"] else match[0]

    return _UNUSUAL.sub(replace_escape, body)


def wrong_type(param: str, must_be: str) -> ApiError:
    """Return the 400 of a field that holds a value of another type.

    >>> wrong_type("stream", "true or false").message
    "'stream' must be true or false."
    """
    return ApiError(400, f"'{param}' must be {must_be}.", param=param, code="invalid_type")


def missing(param: str) -> ApiError:
    """Return the 400 of a field that is not there."""
    return ApiError(400, f"'{param}' is required.", param=param, code="missing_required_parameter")


def empty(param: str) -> ApiError:
    """Return the 400 of a list that must not be empty."""
    return ApiError(400, f"'{param}' must not be empty.", param=param, code="empty_array")


def invalid_head(value: dict[str, Any]) -> ApiError | None:
    """Return what is wrong with ``model`` or ``stream``, which all APIs share; None when nothing is."""
    if not isinstance(value.get("model", ""), str):
        return wrong_type("model", "a string")
    if not isinstance(value.get("stream"), bool | None):
        return wrong_type("stream", "true or false")
    return None


def invalid_messages(value: dict[str, Any]) -> ApiError | None:
    """Return what is wrong with ``messages``, objects with a role; None when nothing is."""
    messages = value.get("messages")
    if "messages" not in value:
        return missing("messages")
    if not isinstance(messages, list):
        return wrong_type("messages", "a list")
    for index, message in enumerate(messages):
        name = f"messages[{index}]"
        if not isinstance(message, dict):
            return wrong_type(name, "an object")
        if not isinstance(message.get("role"), str):
            return wrong_type(f"{name}.role", "a string")
    return None
