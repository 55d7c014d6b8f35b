"""Token counts by cl100k_base, the unit of every token budget here; read from disk, never from a network."""

import base64
from functools import cached_property
from typing import Final

from tiktoken import Encoding

from store.assets import read_package_file

# cl100k_base as tiktoken defines it (tiktoken_ext/openai_public.py). litellm ships the same ranks under tiktoken's
# cache name, the SHA-1 of the address that tiktoken would load from. tiktoken's own loader is not used: it fetches
# the file when it is missing or its hash differs, and it is steered by a process-wide environment variable.
RANKS_FILE: Final = ("litellm_core_utils", "tokenizers", "9b5ad71b2ce5302211f9c61530b329a4922fc6a4")
RANKS_SHA256: Final = "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7"
WORD_PATTERN: Final = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]"
    r"|\s+(?!\S)|\s"
)


class TokenCounter:
    """Counts tokens; safe to share between threads."""

    def __init__(self, encoding: Encoding) -> None:
        self._encoding = encoding

    def is_one(self, text: str) -> bool:
        """Return whether *text*, a word with or without a blank before it, is one token; takes 0.5 us.

        >>> load_token_counter().is_one(" refund"), load_token_counter().is_one(" chargeback")
        (True, False)
        """
        try:
            self._encoding.encode_single_token(text)
        except KeyError:
            return False
        return True

    @cached_property
    def words(self) -> frozenset[str]:
        """The ASCII words in lower case that are one token after a blank, in some case: WORD, Word or word.

        Who asks for many words asks here: it takes 20 ms to make and 4 MB to keep, and a tenth of the time to ask.

        >>> "refund" in load_token_counter().words, "monday" in load_token_counter().words
        (True, True)
        """
        found = set()
        for token in self._encoding.token_byte_values():
            word = token[1:]
            if token[:1] == b" " and word.isalpha():  # ASCII letters alone
                small = word.lower()
                if word in (small, small.capitalize(), small.upper()):
                    found.add(small.decode("ascii"))
        return frozenset(found)

    def count(self, text: str) -> int:
        """Return how many cl100k_base tokens *text* is; 0 for no text.

        Text that reads like a special token (``<|endoftext|>``) counts as the ordinary text that it is. Takes about
        0.3 us per token: count when an item is written, not per request.
        """
        return len(self._encoding.encode_ordinary(text))


def load_token_counter() -> TokenCounter:
    """Return a counter; reads 1.7 MB from disk, 0.1 to 0.2 s and 26 MB of memory.

    Raises:
        AssetError: the file with the ranks is missing or another version.
    """
    ranks = {}
    for line in read_package_file("litellm", *RANKS_FILE, sha256=RANKS_SHA256).splitlines():
        token, _, rank = line.partition(b" ")
        ranks[base64.b64decode(token)] = int(rank)
    return TokenCounter(Encoding("cl100k_base", pat_str=WORD_PATTERN, mergeable_ranks=ranks, special_tokens={}))
