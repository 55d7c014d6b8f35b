"""Limits of keys in a running installation: they hold, they follow the command, and nothing used is lost or doubled."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.flow.product import Product, eventually
from tests.upstream import Reply, SeenRequest, Upstream, chat_reply

USAGE = {"prompt_tokens": 90, "completion_tokens": 10, "total_tokens": 100}


def counted(request: SeenRequest) -> Reply:
    return chat_reply(request, usage=USAGE)


@pytest.fixture
def product(tmp_path: Path) -> Iterator[Product]:
    """A proxy in keys mode in front of an upstream whose replies each cost 100 tokens."""
    with (
        Upstream(counted) as upstream,
        Product(
            tmp_path,
            upstream.base_url,
            settings={"tenancy": {"mode": "keys"}, "prices": {"gpt-test": [10000, 10000]}},
        ) as installation,
    ):
        yield installation


def create(product: Product, *limits: str) -> dict[str, Any]:
    made: dict[str, Any] = product.command_json("keys", "create", *limits)
    return made


def ask(product: Product, key: dict[str, Any], **headers: str) -> httpx.Response:
    return product.chat(headers={"authorization": f"Bearer {key['key']}", **headers})


def used(product: Product, key: dict[str, Any]) -> dict[str, Any] | None:
    rows = product.rows("SELECT * FROM key_months WHERE key_id = :id", id=key["id"])
    return rows[0] if rows else None


def test_a_months_tokens_end_and_a_raised_limit_holds_within_moments(product: Product) -> None:
    key = create(product, "--monthly-tokens", "250")
    product.start("proxy")
    assert [ask(product, key).status_code for _ in range(4)] == [200, 200, 200, 429]
    refused = ask(product, key)
    assert refused.json()["error"]["code"] == "insufficient_quota"
    assert refused.headers["x-should-retry"] == "false"

    product.command("keys", "limit", key["id"], "--monthly-tokens", "350")

    eventually(lambda: ask(product, key).status_code == 200)
    assert ask(product, key).status_code == 429
    (listed,) = (row for row in product.command_json("keys", "list") if row["id"] == key["id"])
    assert listed["limits"]["monthly_tokens"] == 350
    eventually(lambda: (used(product, key) or {}).get("requests") == 4)


def test_what_was_used_outlives_a_killed_proxy_and_counts_once(product: Product) -> None:
    key = create(product, "--monthly-budget-usd", "3")
    running = product.start("proxy")
    # Not recorded, not learned from, but paid for.
    assert [ask(product, key, **{"x-tutelage-learn": "off"}).status_code for _ in range(3)] == [200, 200, 200]
    running.kill()

    product.start("proxy")

    eventually(lambda: (used(product, key) or {}).get("requests") == 3)
    month = used(product, key)
    assert month is not None
    assert (month["prompt_tokens"], month["completion_tokens"]) == (270, 30)
    assert month["cost_usd"] == pytest.approx(3.0)
    assert product.rows("SELECT * FROM responses") == []
    eventually(lambda: ask(product, key).status_code == 429)  # within a look of the new proxy at the database


def test_limits_of_the_settings_hold_in_open_mode_for_all_clients_together(
    tmp_path: Path, shared_upstream: Upstream
) -> None:
    with Product(tmp_path, shared_upstream.base_url, settings={"limits": {"requests_per_minute": 2}}) as product:
        product.start("proxy")
        answers = [product.chat(headers={"authorization": f"Bearer sk-{number}"}) for number in range(3)]
        metrics = httpx.get(f"{product.proxy_url}/metrics").text
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[2].headers["x-ratelimit-limit-requests"] == "2"
    assert answers[2].headers["retry-after"] == "30"
    assert 'tutelage_limited_requests_total{limit="requests_per_minute"} 1.0' in metrics
