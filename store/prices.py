"""What tokens cost: the operator's own prices first, then the list that the installed litellm brings."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import msgspec

from store.assets import read_package_file
from store.errors import AssetError

LIST_FILE: Final = "model_prices_and_context_window_backup.json"
LIST_SHA256: Final = "66970be01c88f94618f9f69c1a1d29e400474f2d7b89973de7e373c110f455c2"
_MAX_WARNINGS: Final = 1000  # names of models come from clients: how many are remembered as warned of

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Price:
    """Dollars per token."""

    prompt: float
    completion: float
    cached: float  # of a prompt's token that the provider read from its cache


class _Listed(msgspec.Struct):
    """What is read of a model in litellm's list: dollars per token of the plain tier."""

    input_cost_per_token: float | None = None
    output_cost_per_token: float | None = None
    cache_read_input_token_cost: float | None = None


def load_listed_prices() -> dict[str, Price]:
    """Return the prices in litellm's list by the names it uses; models that are not paid by the token are left out.

    Raises:
        AssetError: the list is missing or of another version.
    """
    listed = msgspec.json.decode(read_package_file("litellm", LIST_FILE, sha256=LIST_SHA256), type=dict[str, _Listed])
    return {
        name: Price(
            prompt=model.input_cost_per_token,
            completion=model.output_cost_per_token or 0.0,
            cached=_either(model.cache_read_input_token_cost, model.input_cost_per_token),
        )
        for name, model in listed.items()
        if model.input_cost_per_token is not None
    }


def _either(first: float | None, second: float) -> float:
    return second if first is None else first


class PriceBook:
    """Prices by model. litellm's list is read when ``load`` is called: only budgets in dollars need it."""

    def __init__(
        self,
        own: Mapping[str, tuple[float, ...]],
        load_listed: Callable[[], Mapping[str, Price]] = load_listed_prices,
    ) -> None:
        """Take the operator's prices as ``[prices]`` has them, in dollars per million tokens."""
        self._own = {name: _own_price(price) for name, price in own.items()}
        self._load_listed = load_listed
        self._listed: Mapping[str, Price] = {}
        self._is_loaded = False
        self._warned: set[str] = set()
        self.problem: str | None = None
        """Why litellm's list could not be read; None when it was, or was not needed."""

    def load(self) -> None:
        """Read litellm's list, once. Without it the operator's own prices are all there is."""
        if self._is_loaded:
            return
        self._is_loaded = True
        try:
            self._listed = self._load_listed()
        except AssetError as exc:
            self.problem = str(exc)
            logger.warning("budgets count only models in [prices]: %s", exc)

    def cost_usd(
        self, model: str, provider: str, prompt_tokens: int, completion_tokens: int, cached_tokens: int
    ) -> float:
        """Return dollars; 0, and one warning a model, when its price is not known.

        Args:
            model: as the app asked for it.
            provider: of the upstream that answered, as litellm calls it.
            prompt_tokens: all of the prompt's, the cached ones included.
            completion_tokens: of the reply.
            cached_tokens: of the prompt's, those that the provider read from its cache.
        """
        if not prompt_tokens and not completion_tokens:
            return 0.0
        price = self.find(model, provider)
        if price is None:
            self._warn(model)
            return 0.0
        n_cached = min(cached_tokens, prompt_tokens)
        return (
            (prompt_tokens - n_cached) * price.prompt + n_cached * price.cached + completion_tokens * price.completion
        )

    def find(self, model: str, provider: str) -> Price | None:
        """Return the price of *model*, None when it is not known."""
        own = self._own.get(model)
        if own is not None:
            return own
        # litellm writes "gpt-4o" and "anthropic/claude-..." or both forms; clients of a router write "openai/gpt-4o".
        names = (f"{provider}/{model}", model, model.partition("/")[2])
        return next((self._listed[name] for name in names if name in self._listed), None)

    def _warn(self, model: str) -> None:
        if model not in self._warned and len(self._warned) < _MAX_WARNINGS:
            self._warned.add(model)
            logger.warning("model %r has no known price and counts 0 dollars; add it to [prices]", model)


def _own_price(price: tuple[float, ...]) -> Price:
    prompt, completion, *cached = (dollars / 1_000_000 for dollars in price)
    return Price(prompt, completion, cached[0] if cached else prompt)
