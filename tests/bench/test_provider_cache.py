"""The simulated provider's bill: what the figures on cache-stable injection rest on."""

from collections.abc import Sequence

import pytest

from bench.dialects import DIALECTS, Block, Dialect, Item
from bench.provider_cache import READ_PRICE, WRITE_PRICE, billed_implicit_writes, billed_writes, free_writes
from store.tokens import TokenCounter, load_token_counter

LONG = "one " * 2000
ITEMS = (
    Item("user", "What does a card cost?"),
    Item("call", "cards", "call_1"),
    Item("result", "10 euros", "call_1"),
    Item("assistant", "It costs 10 euros."),
    Item("user", "And a second one?"),
)


@pytest.fixture(scope="module")
def tokens() -> TokenCounter:
    return load_token_counter()


def total(tokens: TokenCounter, prompt: Sequence[Block]) -> int:
    return tokens.count("".join(f"<|{block.role}|>{block.text}" for block in prompt))


def test_the_first_request_reads_nothing(tokens: TokenCounter) -> None:
    prompt = [Block("system", LONG)]

    assert free_writes([prompt], tokens) == total(tokens, prompt)


def test_a_repeated_prompt_is_read_in_steps_of_128(tokens: TokenCounter) -> None:
    prompt = [Block("system", LONG)]
    n_tokens = total(tokens, prompt)
    n_read = 1024 + (n_tokens - 1024) // 128 * 128

    assert free_writes([prompt, prompt], tokens) == pytest.approx(n_tokens + READ_PRICE * n_read + n_tokens - n_read)


def test_a_prompt_under_1024_tokens_is_never_cached(tokens: TokenCounter) -> None:
    prompt = [Block("system", "one " * 500)]

    assert billed_implicit_writes([prompt, prompt], tokens) == 2 * total(tokens, prompt)


def test_text_in_front_leaves_nothing_to_read(tokens: TokenCounter) -> None:
    prompts = [[Block("system", f"{number} {LONG}")] for number in range(2)]

    assert free_writes(prompts, tokens) == sum(total(tokens, prompt) for prompt in prompts)


def test_what_follows_the_last_breakpoint_is_not_written(tokens: TokenCounter) -> None:
    system, question = Block("system", LONG, is_breakpoint=True), Block("user", "What?")
    n_system, n_all = total(tokens, [system]), total(tokens, [system, question])

    assert billed_writes([[system, question]], tokens) == pytest.approx(WRITE_PRICE * n_system + n_all - n_system)


def test_a_prefix_that_ended_at_a_breakpoint_is_read_without_one(tokens: TokenCounter) -> None:
    marked, plain = Block("system", LONG, is_breakpoint=True), Block("system", LONG)
    n_tokens = total(tokens, [plain])

    assert billed_writes([[marked], [plain]], tokens) == pytest.approx((WRITE_PRICE + READ_PRICE) * n_tokens)


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
def test_a_later_turn_begins_with_the_earlier_one(dialect: Dialect) -> None:
    earlier = dialect.prompt(dialect.body("Be brief.", ITEMS[:1]))
    later = dialect.prompt(dialect.body("Be brief.", ITEMS))

    assert [(block.role, block.text) for block in later][: len(earlier)] == [
        (block.role, block.text) for block in earlier
    ]
