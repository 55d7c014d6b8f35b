"""What a provider bills for the input of a conversation's requests, with its prefix cache.

Prices are relative to one input token without cache. Sources: OpenAI's and Anthropic's guides to prompt caching.
"""

from collections.abc import Callable, Sequence

from bench.dialects import Block, Prompt
from store.tokens import TokenCounter

MIN_TOKENS = 1024
STEP_TOKENS = 128
READ_PRICE = 0.1
WRITE_PRICE = 1.25
Bill = Callable[[Sequence[Prompt], TokenCounter], float]


def free_writes(prompts: Sequence[Prompt], tokens: TokenCounter) -> float:
    """Return the input's cost where whatever was seen is cached: exact prefixes, from 1,024 tokens in steps of 128."""
    return _implicit(prompts, tokens, write_price=1.0)


def billed_implicit_writes(prompts: Sequence[Prompt], tokens: TokenCounter) -> float:
    """Return the same where the newly cached tokens cost 1.25."""
    return _implicit(prompts, tokens, write_price=WRITE_PRICE)


def _implicit(prompts: Sequence[Prompt], tokens: TokenCounter, *, write_price: float) -> float:
    cost, seen = 0.0, [""]
    for prompt in prompts:
        text = "".join(map(_rendered, prompt))
        shared = max(_common_prefix(text, earlier) for earlier in seen)
        read, total = _in_steps(tokens.count(text[:shared])), tokens.count(text)
        written = _in_steps(total) - read
        cost += READ_PRICE * read + write_price * written + (total - read - written)
        seen.append(text)
    return cost


def billed_writes(prompts: Sequence[Prompt], tokens: TokenCounter) -> float:
    """Return the input's cost where a cache is written only at the app's breakpoints, at 1.25, and read at 0.1.

    A request reads the longest prefix that ends with a block and was written before.
    """
    cost: float = 0.0
    written: set[str] = set()
    for prompt in prompts:
        ends, text = [], ""
        for block in prompt:
            text += _rendered(block)
            ends.append((text, tokens.count(text), block.is_breakpoint))
        read = max((n for end, n, _ in ends if end in written), default=0)
        marked = [(end, n) for end, n, is_breakpoint in ends if is_breakpoint and n >= MIN_TOKENS]
        until = max((n for _, n in marked), default=0)
        write = max(0, until - read)
        cost += READ_PRICE * read + WRITE_PRICE * write + (ends[-1][1] - read - write)
        written.update(end for end, _ in marked)
    return cost


def _rendered(block: Block) -> str:
    return f"<|{block.role}|>{block.text}"


def _in_steps(n_tokens: int) -> int:
    return 0 if n_tokens < MIN_TOKENS else n_tokens - (n_tokens - MIN_TOKENS) % STEP_TOKENS


def _common_prefix(one: str, other: str) -> int:
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[:middle] == other[:middle]:
            low = middle
        else:
            high = middle - 1
    return low
