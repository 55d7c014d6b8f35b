"""The name of a model as one upstream knows it, put in the place of the one that the app asked for."""

from collections.abc import Mapping
from typing import Final

import msgspec

from proxy.json_body import usual_form
from proxy.parsed_request import EMPTY, place_of
from proxy.splice import escaped, splice


class _Named(msgspec.Struct, gc=False):
    model: msgspec.Raw = EMPTY


_decoder: Final = msgspec.json.Decoder(_Named)


def rename_model(body: bytes, names: Mapping[str, str]) -> bytes:
    """Return *body* with the model's name replaced as *names* say; every other byte, and any other body, stays.

    >>> rename_model(b'{"model": "gpt-5", "n": 1}', {"gpt-5": "my-deployment"})
    b'{"model": "my-deployment", "n": 1}'
    >>> rename_model(b'{"model": "o3"}', {"gpt-5": "my-deployment"})
    b'{"model": "o3"}'
    """
    if not names:
        return body
    source = body
    try:
        try:
            raw = _decoder.decode(source).model
        except (msgspec.DecodeError, UnicodeDecodeError):
            source = usual_form(body)
            raw = _decoder.decode(source).model
        name = msgspec.json.decode(raw, type=str) if raw else ""
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return body  # not ours to judge: the upstream answers
    if name not in names:
        return body
    start, end = place_of(raw, source)
    return splice(body, [(start + 1, end - 1, escaped(names[name]))])
