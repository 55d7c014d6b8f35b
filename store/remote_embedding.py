"""What an OpenAI-compatible embeddings endpoint is asked, and what its answer says: pure, bytes in and out.

Its vectors are kept at the same 256 dimensions as the local ones. A longer one is cut, which is right for models
trained for it (Matryoshka); a shorter one gets zeros at its end, which change no cosine.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np

from store.config import EmbeddingSection
from store.embedding import Vector, clipped
from store.vectors import DIMENSIONS

TARGET: Final = "/embeddings"  # below the server's base_url
MAX_COMPONENTS: Final = 65_536  # of one vector; more is no embedding


class EmbeddingReplyError(Exception):
    """An embedding server's answer is not one vector for each text; the message says what is wrong, not the text."""


@dataclass(frozen=True, slots=True)
class Embedded:
    """One answer."""

    vectors: Vector
    """(n, 256), rows of unit length, in the order of the texts."""
    prompt_tokens: int
    """As the server counted; 0 when it does not say."""


class _Item(msgspec.Struct):
    embedding: list[float]
    index: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0


class _Answer(msgspec.Struct):
    data: list[_Item]
    usage: _Usage | None = None


def model_name(section: EmbeddingSection) -> str:
    """Return the name stored with the vectors of the configured model: others cannot be compared with them."""
    return f"{section.model}@{section.request_dimensions}" if section.request_dimensions else section.model


def encode_request(section: EmbeddingSection, texts: Sequence[str]) -> bytes:
    """Return the body that asks for the vectors of *texts*, none of them blank."""
    body: dict[str, object] = {
        "model": section.model,
        "input": [clipped(text).encode("utf-8", "replace").decode() for text in texts],
        "encoding_format": "float",
    }
    if section.request_dimensions:
        body["dimensions"] = section.request_dimensions
    return msgspec.json.encode(body)


def decode_reply(body: bytes, n_texts: int) -> Embedded:
    """Return the vectors in an answer to *n_texts* texts.

    Raises:
        EmbeddingReplyError: it is malformed, of another number, or holds a vector without a direction.
    """
    try:
        answer = msgspec.json.decode(body, type=_Answer)
    except msgspec.DecodeError as exc:
        raise EmbeddingReplyError(f"not an answer with embeddings: {exc}") from exc
    if len(answer.data) != n_texts:
        raise EmbeddingReplyError(f"{len(answer.data)} embeddings for {n_texts} texts")
    places = [item.index if item.index is not None else place for place, item in enumerate(answer.data)]
    if sorted(places) != list(range(n_texts)):
        raise EmbeddingReplyError("the embeddings are not numbered from 0 on")
    vectors = np.zeros((n_texts, DIMENSIONS), np.float32)
    for place, item in zip(places, answer.data, strict=True):
        vectors[place] = _fitted(item.embedding)
    return Embedded(vectors, answer.usage.prompt_tokens if answer.usage else 0)


def _fitted(components: Sequence[float]) -> Vector:
    if not 0 < len(components) <= MAX_COMPONENTS:
        raise EmbeddingReplyError(f"an embedding of {len(components)} components")
    kept = np.array(components[:DIMENSIONS], np.float64)
    length = float(np.linalg.norm(kept))
    if not np.isfinite(length) or length == 0:
        raise EmbeddingReplyError("an embedding without a direction")
    fitted = np.zeros(DIMENSIONS, np.float32)
    fitted[: len(kept)] = kept / length
    return fitted
