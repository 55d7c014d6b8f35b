"""Text to unit vectors, on this machine: static word vectors (wordllama, 256-d), read directly from its files.

A text's vector is the mean of its tokens' vectors, normalised. wordllama's own code is not imported: it configures
logging for the whole process and turns an empty text into NaN.
"""

import math
from collections.abc import Sequence
from typing import Final, Protocol

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from tokenizers import Tokenizer

from store.assets import read_package_file
from store.config import EmbeddingSection
from store.refit_table import RefitTable
from store.vectors import DIMENSIONS

# Other files would make other vectors under the same name: those stored with it could not be compared any more.
WEIGHTS_SHA256: Final = "64b47a2dc493cb8e85944076601189739852d7b64e0e1eedcb1937a251cd9fd5"
TOKENIZER_SHA256: Final = "93248f2a9ec36c7b35f700a033d5f36228aae48db61aee31007fa49062cdeb68"
# Characters from a text's start and as many from its end. What somebody asks stands before or after what they paste;
# a mean over thousands of pasted words says nothing, and the request path must not pay for them.
MAX_END_CHARS: Final = 1000
MAX_CACHED_WORD_CHARS: Final = 32  # longer ones are links, keys and pastes that do not come again
WORD_MARK: Final = "\u2581"  # how the tokenizer writes the space before a word

Vector = NDArray[np.float32]


class Embedder(Protocol):
    """Turns texts into unit vectors of 256 dimensions; the cosine of two is their dot product."""

    @property
    def name(self) -> str:
        """Return the name stored with each vector: vectors of different names cannot be compared."""
        ...

    def embed(self, texts: Sequence[str]) -> Vector:
        """Return (n, 256) unit rows; a text without words is a row of zeros."""
        ...

    def embed_one(self, text: str) -> Vector:
        """Return (256,), of unit length; zeros for a text without words."""
        ...


class LocalEmbedder:
    """wordllama's static vectors with a cache of each word's token ids; safe to share between threads.

    The cache is two dicts: when the newer is full it becomes the older, and what is found only in the older moves
    back. So it holds at most ``cache_size`` words, keeps what is used, and needs no lock: a race costs one more
    tokenisation, never a wrong vector.
    """

    name = "wordllama-l2-supercat-256"

    def __init__(self, table: Vector, tokenizer: Tokenizer, cache_size: int) -> None:
        self._table = table  # (vocabulary, 256)
        self._tokenizer = tokenizer
        self._half = max(cache_size // 2, 1)
        self._newer: dict[str, list[int]] = {}
        self._older: dict[str, list[int]] = {}

    def embed(self, texts: Sequence[str]) -> Vector:
        vectors = np.zeros((len(texts), DIMENSIONS), dtype=np.float32)
        for row, text in enumerate(texts):
            vectors[row] = self.embed_one(text)
        return vectors

    def embed_one(self, text: str) -> Vector:
        ids = self.token_ids(text)
        if not ids:
            return np.zeros(DIMENSIONS, dtype=np.float32)
        # The sum has the direction of the mean.
        return normalised(np.add.reduce(self._table.take(ids, axis=0), axis=0))

    def embed_refitted(self, text: str, refit: RefitTable) -> Vector:
        """Return (256,) of a tenant's own vectors, of unit length; zeros for a text without words."""
        ids = self.token_ids(text)
        if not ids:
            return np.zeros(DIMENSIONS, dtype=np.float32)
        return normalised(refit.vector(ids, self._table.take(ids, axis=0)))

    @property
    def table(self) -> Vector:
        """Return the vectors of all tokens, (vocabulary, 256)."""
        return self._table

    def token_ids(self, text: str) -> list[int]:
        """Return the ids of *text* with its whitespace collapsed, word by word.

        The same as of the whole text at once: no token of this vocabulary holds a word mark after another
        character, so no merge crosses the boundary between two words.
        """
        words = clipped(text).replace(WORD_MARK, " ").split()
        newer = self._newer
        ids: list[int] = []
        for word in words:
            ids += newer.get(word) or self._word_ids(word)
        return ids

    def _word_ids(self, word: str) -> list[int]:
        ids = self._older.get(word)
        if ids is None:
            # A lone surrogate is no Unicode text: the tokenizer would raise.
            text = word.encode("utf-8", "replace").decode("utf-8")
            ids = self._tokenizer.encode(text, add_special_tokens=False).ids
        if len(word) <= MAX_CACHED_WORD_CHARS:
            if len(self._newer) >= self._half:
                self._older, self._newer = self._newer, {}
            self._newer[word] = ids
        return ids


class RefittedEmbedder:
    """A tenant's own vectors, where an ``Embedder`` is asked for."""

    def __init__(self, local: LocalEmbedder, refit: RefitTable) -> None:
        self.name = refit.name
        self._local = local
        self._refit = refit

    def embed(self, texts: Sequence[str]) -> Vector:
        vectors = np.zeros((len(texts), DIMENSIONS), dtype=np.float32)
        for row, text in enumerate(texts):
            vectors[row] = self.embed_one(text)
        return vectors

    def embed_one(self, text: str) -> Vector:
        return self._local.embed_refitted(text, self._refit)


def load_local_embedder(section: EmbeddingSection) -> LocalEmbedder:
    """Return the embedder of ``[embedding]``; reads 18 MB from disk, about 0.1 s and 55 MB of memory.

    Raises:
        AssetError: wordllama's files are missing, damaged or of another version.
    """
    weights = read_package_file("wordllama", "weights", "l2_supercat_256.safetensors", sha256=WEIGHTS_SHA256)
    table = safetensors.numpy.load(weights)["embedding.weight"].astype(np.float32)
    tokenizer = Tokenizer.from_buffer(
        read_package_file("wordllama", "tokenizers", "l2_supercat_tokenizer_config.json", sha256=TOKENIZER_SHA256)
    )
    tokenizer.encode_special_tokens = True  # a user's "</s>" is text, not a control token
    return LocalEmbedder(table, tokenizer, section.cache_size)


def clipped(text: str) -> str:
    """Return what is embedded of *text*: all of it, or its start and its end."""
    return text if len(text) <= 2 * MAX_END_CHARS else f"{text[:MAX_END_CHARS]} {text[-MAX_END_CHARS:]}"


def normalised(vector: Vector) -> Vector:
    """Return *vector* (d,) at unit length; a vector of zeros stays one.

    >>> normalised(np.array([3, 4], np.float32))
    array([0.6, 0.8], dtype=float32)
    """
    length = math.sqrt(vector.dot(vector))
    return vector / np.float32(length) if length > 0 else vector


def entry_embedding(embedder: Embedder, questions: Sequence[str]) -> Vector:
    """Return (256,): the normalised mean of the vectors of an entry's phrasings; zeros when all are without words.

    One vector per entry finds as well as the best of three and costs a third (FINDINGS: 1 to 7 points better).
    """
    return normalised(np.add.reduce(embedder.embed(questions), axis=0))


def top_k(query: Vector, matrix: Vector, k: int) -> tuple[NDArray[np.int64], Vector]:
    """Return the *k* rows most similar to *query*, best first; equally similar ones in order of rows.

    Args:
        query: (d,), unit length.
        matrix: (n, d), rows of unit length.
        k: at least 1; n come back when n < k.

    Returns:
        Row indices (min(k, n),) and cosine similarities (min(k, n),) in [-1, 1].

    Raises:
        ValueError: *query* and *matrix* differ in d.

    >>> top_k(np.array([1, 0], np.float32), np.eye(2, dtype=np.float32), k=1)
    (array([0]), array([1.], dtype=float32))
    """
    similarities = matrix @ query
    n = len(similarities)
    rows = np.sort(np.argpartition(-similarities, k - 1)[:k]) if n > k else np.arange(n)
    best = rows[np.argsort(-similarities[rows], kind="stable")]
    return best, similarities[best]
