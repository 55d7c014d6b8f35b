"""What tokens cost."""

import logging

import pytest

from store.errors import AssetError
from store.prices import Price, PriceBook, load_listed_prices

LISTED = {"gpt-5": Price(1e-6, 1e-5, 1e-7), "anthropic/claude": Price(3e-6, 15e-6, 3e-7)}


def book(own: dict[str, tuple[float, ...]] | None = None) -> PriceBook:
    made = PriceBook(own or {}, lambda: LISTED)
    made.load()
    return made


def test_the_list_that_the_installed_litellm_brings_is_read() -> None:
    prices = load_listed_prices()

    assert prices["gpt-4o"] == Price(prompt=2.5e-6, completion=1e-5, cached=1.25e-6)
    assert len(prices) > 1000


def test_a_request_costs_its_tokens_and_cached_ones_cost_less() -> None:
    cost_usd = book().cost_usd("gpt-5", "openai", prompt_tokens=1000, completion_tokens=100, cached_tokens=400)

    assert cost_usd == pytest.approx(600 * 1e-6 + 400 * 1e-7 + 100 * 1e-5)


def test_no_more_is_cached_than_there_is() -> None:
    assert book().cost_usd("gpt-5", "openai", 10, 0, 99) == pytest.approx(10 * 1e-7)


@pytest.mark.parametrize(
    ("model", "provider", "found"),
    [
        ("gpt-5", "openai", "gpt-5"),
        ("openai/gpt-5", "openai", "gpt-5"),
        ("claude", "anthropic", "anthropic/claude"),
        ("anthropic/claude", "anthropic", "anthropic/claude"),
        ("anthropic/claude", "openai", "anthropic/claude"),
        ("claude", "openai", None),
        ("gpt", "openai", None),
        ("", "openai", None),
    ],
)
def test_a_model_is_found_by_its_name_with_or_without_its_provider(
    model: str, provider: str, found: str | None
) -> None:
    assert book().find(model, provider) == (LISTED[found] if found else None)


def test_the_operators_prices_go_first_and_are_per_million_tokens() -> None:
    mine = book({"gpt-5": (2.0, 4.0), "my-deployment": (1.0, 2.0, 0.5)})

    assert mine.find("gpt-5", "openai") == Price(2e-6, 4e-6, 2e-6)
    assert mine.find("my-deployment", "openai") == Price(1e-6, 2e-6, 5e-7)


def test_a_model_without_a_price_costs_nothing_and_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    prices = book()
    with caplog.at_level(logging.WARNING):
        costs = [prices.cost_usd("llama", "openai", 1000, 1000, 0) for _ in range(3)]

    assert costs == [0.0, 0.0, 0.0]
    assert [record.getMessage() for record in caplog.records] == [
        "model 'llama' has no known price and counts 0 dollars; add it to [prices]"
    ]


def test_a_list_that_cannot_be_read_leaves_the_operators_prices(caplog: pytest.LogCaptureFixture) -> None:
    def missing() -> dict[str, Price]:
        raise AssetError("no list")

    prices = PriceBook({"mine": (1.0, 1.0)}, missing)
    prices.load()
    prices.load()

    assert prices.problem == "no list"
    assert len(caplog.records) == 1
    assert prices.find("mine", "openai") is not None
    assert prices.find("gpt-4o", "openai") is None
