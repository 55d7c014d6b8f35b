"""Token counts: exact, offline, and clear about what is missing."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from store.assets import read_package_file
from store.errors import AssetError
from store.tokens import RANKS_FILE, TokenCounter, load_token_counter


@pytest.fixture(scope="module")
def counter() -> TokenCounter:
    return load_token_counter()


def test_no_text_is_no_tokens(counter: TokenCounter) -> None:
    assert counter.count("") == 0


@pytest.mark.parametrize(
    ("text", "n_tokens"),
    [
        ("tiktoken is great!", 6),  # the example of tiktoken's own documentation
        ("antidisestablishmentarianism", 6),
        ("2 + 2 = 4", 7),
        ("お誕生日おめでとう", 9),
        ("hello world", 2),
    ],
)
def test_counts_are_those_of_cl100k_base(counter: TokenCounter, text: str, n_tokens: int) -> None:
    assert counter.count(text) == n_tokens


def test_words_are_what_is_one_token_after_a_blank_in_some_case(counter: TokenCounter) -> None:
    tokens = counter._encoding.token_byte_values()
    parts = sorted({token.strip().lower().decode("ascii") for token in tokens if token.strip().isalpha()})
    joined = [f"{one}{other}" for one, other in zip(parts, reversed(parts), strict=True)]

    known = {word for word in parts + joined if any(map(counter.is_one, _forms(word)))}

    assert counter.words == known


def _forms(word: str) -> list[str]:
    return [f" {form}" for form in (word, word.capitalize(), word.upper())]


def test_text_that_reads_like_a_special_token_is_counted_as_text(counter: TokenCounter) -> None:
    assert counter.count("<|endoftext|>") == 7


def test_a_lone_surrogate_does_not_raise(counter: TokenCounter) -> None:
    assert counter.count("a\ud800b") > 0


def test_loading_opens_no_socket_and_leaves_the_environment_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    before = dict(os.environ)

    assert load_token_counter().count("hello world") == 2
    assert dict(os.environ) == before


def test_loading_imports_neither_litellm_nor_wordllama() -> None:
    code = (
        "import sys; from store.tokens import load_token_counter; from store.embedding import load_local_embedder;"
        "from store.config import load_config; load_token_counter(); load_local_embedder(load_config().embedding);"
        "print([name for name in ('litellm', 'wordllama', 'torch', 'requests') if name in sys.modules])"
    )

    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)

    assert result.stdout == "[]\n"


def test_a_missing_file_is_named() -> None:
    with pytest.raises(AssetError, match="nowhere"):
        read_package_file("litellm", "nowhere", sha256="")


def test_a_missing_package_is_named() -> None:
    with pytest.raises(AssetError, match="'no_such_package' is not installed"):
        read_package_file("no_such_package", "file", sha256="")


def test_a_file_of_another_version_is_named() -> None:
    with pytest.raises(AssetError, match=f"{Path(*RANKS_FILE).name} is damaged or of another version"):
        read_package_file("litellm", *RANKS_FILE, sha256="0" * 64)
