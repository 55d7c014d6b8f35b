"""What a provider answers on the paths that nothing is learned from."""

import base64
import struct
from typing import Any
from urllib.parse import urlsplit

from tests.upstream import Reply, SeenRequest, json_reply

N_DIMENSIONS = 3
MODELS = ("gpt-4o", "gpt-4o-mini", "text-embedding-3-small")


def answer(request: SeenRequest) -> Reply | None:
    """Return the answer, or None on a path that a model answers."""
    answers = {
        "/v1/embeddings": _embeddings,
        "/v1/models": _models,
        "/v1/files": _file,
        "/v1/messages/count_tokens": _count,
    }
    make = answers.get(urlsplit(request.target).path)
    return make(request) if make else None


def _embeddings(request: SeenRequest) -> Reply:
    """Return a vector for each text, as numbers or, as the SDKs ask for it, as base64 of float32."""
    asked = request.json
    texts = asked["input"] if isinstance(asked["input"], list) else [asked["input"]]

    def embedding(index: int) -> Any:
        numbers = [index + dimension / 4 for dimension in range(N_DIMENSIONS)]
        if asked.get("encoding_format") != "base64":
            return numbers
        return base64.b64encode(struct.pack(f"<{N_DIMENSIONS}f", *numbers)).decode()

    data = [{"object": "embedding", "index": index, "embedding": embedding(index)} for index in range(len(texts))]
    usage = {"prompt_tokens": len(texts), "total_tokens": len(texts)}
    return json_reply({"object": "list", "data": data, "model": asked["model"], "usage": usage})


def _models(request: SeenRequest) -> Reply:
    del request
    data = [{"id": name, "object": "model", "created": 1760000000, "owned_by": "scripted"} for name in MODELS]
    return json_reply({"object": "list", "data": data})


def _file(request: SeenRequest) -> Reply:
    return json_reply(
        {
            "id": "file-scripted",
            "object": "file",
            "bytes": len(request.body),
            "created_at": 1760000000,
            "filename": "training.jsonl",
            "purpose": "fine-tune",
            "status": "processed",
        }
    )


def _count(request: SeenRequest) -> Reply:
    return json_reply({"input_tokens": len(request.body)})
