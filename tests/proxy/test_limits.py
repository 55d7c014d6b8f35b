"""Rates and budgets of keys: who is let in, what is answered otherwise, and what is written down."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.authentication import Caller
from proxy.errors import ApiError, error_body
from proxy.limits import Limiter, Meter, TokenBucket, Usage, duration
from store.clock import ManualClock
from store.config import LimitsSection
from store.prices import Price, PriceBook
from store.usage import MonthUse, UsageRecord, Uses, decode_usage

NONE = LimitsSection(0, 0, 0.0, 0)


@dataclass
class Desk:
    """A limiter with everything around it at hand."""

    n_workers: int = 1
    own_prices: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    uses: Uses = field(default_factory=Uses)
    lines: list[bytes] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    clock: ManualClock = field(default_factory=lambda: ManualClock(datetime(2026, 11, 30, 23, 59, 0, tzinfo=UTC)))

    def __post_init__(self) -> None:
        self.limiter = Limiter(
            n_workers=self.n_workers,
            process="use_1",
            write=self.lines.append,
            uses=lambda: self.uses,
            prices=PriceBook(self.own_prices, lambda: {"gpt-5": Price(1e-3, 1e-2, 1e-4)}),
            providers={"openai": "openai"},
            clock=self.clock,
            count_refusal=self.refusals.append,
        )

    @property
    def written(self) -> list[UsageRecord]:
        return [decode_usage(line) for line in self.lines]

    def ask(self, caller: Caller, **used: int) -> None:
        """Let one request in and tell its use."""
        meter = self.limiter.admit(caller)
        assert meter is not None
        meter.settle(Usage(upstream="openai", model="gpt-5", **used))

    def refusal(self, caller: Caller) -> ApiError:
        with pytest.raises(ApiError) as caught:
            self.limiter.admit(caller)
        assert caught.value.status == 429
        return caught.value

    def n_admitted(self, caller: Caller) -> int:
        """Return how many requests are let in at once."""
        for number in range(10_000):
            try:
                self.limiter.admit(caller)
            except ApiError:
                return number
        raise AssertionError("there is no limit")


def caller(key_id: str = "key_1", **limits: float) -> Caller:
    return Caller("acme", key_id, replace(NONE, **limits))  # type: ignore[arg-type]


def headers(error: ApiError) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in error.headers}


def test_a_caller_without_limits_is_always_let_in_and_nobody_counts() -> None:
    desk = Desk()

    assert [desk.limiter.admit(Caller("acme", "key_1", None)) for _ in range(3)] == [None] * 3


def test_requests_a_minute_are_let_in_at_once_and_come_back_evenly() -> None:
    desk = Desk()
    asking = caller(requests_per_minute=6)

    assert desk.n_admitted(asking) == 6
    desk.clock.advance(9.9)
    assert desk.n_admitted(asking) == 0
    desk.clock.advance(0.2)
    assert desk.n_admitted(asking) == 1
    desk.clock.advance(3600)
    assert desk.n_admitted(asking) == 6


def test_too_many_requests_are_told_as_openai_tells_it() -> None:
    desk = Desk()
    asking = caller(requests_per_minute=6, tokens_per_minute=1000)
    desk.n_admitted(asking)

    error = desk.refusal(asking)

    assert error_body(error).decode() == (
        '{"error":{"message":"Rate limit reached for this key on requests per min (RPM): Limit 6. '
        'Please try again in 10s.","type":"requests","param":null,"code":"rate_limit_exceeded"}}'
    )
    assert headers(error) == {
        "retry-after": "10",
        "x-ratelimit-limit-requests": "6",
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "1m0s",
        "x-ratelimit-limit-tokens": "1000",
        "x-ratelimit-remaining-tokens": "1000",
        "x-ratelimit-reset-tokens": "0ms",
    }
    assert set(desk.refusals) == {"requests_per_minute"}


def test_a_request_is_let_in_while_tokens_are_left_and_pays_after_its_reply() -> None:
    desk = Desk()
    asking = caller(tokens_per_minute=600)
    desk.ask(asking, prompt_tokens=400, completion_tokens=100)
    desk.ask(asking, prompt_tokens=400, completion_tokens=0)

    error = desk.refusal(asking)

    assert (error.type, error.code) == ("tokens", "rate_limit_exceeded")
    assert error.message == (
        "Rate limit reached for this key on tokens per min (TPM): Limit 600. Please try again in 30.1s."
    )
    assert headers(error) == {
        "retry-after": "31",
        "x-ratelimit-limit-tokens": "600",
        "x-ratelimit-remaining-tokens": "0",
        "x-ratelimit-reset-tokens": "1m30s",
    }
    desk.clock.advance(30.1)
    assert desk.limiter.admit(asking) is not None
    assert desk.refusals == ["tokens_per_minute"]


def test_keys_do_not_share_their_limits() -> None:
    desk = Desk()

    assert [desk.n_admitted(caller(key_id, requests_per_minute=2)) for key_id in ("a", "b", "a")] == [2, 2, 0]


def test_each_worker_holds_its_part_of_a_rate() -> None:
    assert Desk(n_workers=4).n_admitted(caller(requests_per_minute=60)) == 15
    one_of_many = Desk(n_workers=4)
    assert one_of_many.n_admitted(caller(requests_per_minute=2)) == 1
    one_of_many.clock.advance(119)
    assert one_of_many.n_admitted(caller(requests_per_minute=2)) == 0
    one_of_many.clock.advance(1.5)
    assert one_of_many.n_admitted(caller(requests_per_minute=2)) == 1


def test_a_changed_limit_holds_at_once_and_what_was_used_stays_used() -> None:
    desk = Desk()

    assert desk.n_admitted(caller(requests_per_minute=6)) == 6
    assert desk.n_admitted(caller(requests_per_minute=6)) == 0  # the same limit, read anew
    assert desk.n_admitted(caller(requests_per_minute=10)) == 4
    assert desk.n_admitted(caller(requests_per_minute=2)) == 0
    assert desk.limiter.admit(caller()) is None


def test_a_clock_that_is_set_back_takes_nothing_away() -> None:
    bucket = TokenBucket(60, 1000.0)
    bucket.take(10)

    assert [bucket.level(now_s) for now_s in (900.0, 1000.0, 1001.0)] == [50.0, 50.0, 51.0]


@given(st.integers(1, 1000), st.lists(st.tuples(st.floats(0, 30), st.integers(0, 50)), max_size=50))
def test_no_more_gets_in_than_a_full_bucket_and_what_flows_in(per_minute: int, steps: list[tuple[float, int]]) -> None:
    desk = Desk()
    asking = caller(requests_per_minute=per_minute)
    n_admitted, elapsed_s = 0, 0.0
    for pause_s, n_tries in steps:
        desk.clock.advance(pause_s)
        elapsed_s += pause_s
        for _ in range(n_tries):
            try:
                desk.limiter.admit(asking)
            except ApiError:
                break
            n_admitted += 1

    assert n_admitted <= per_minute + elapsed_s * per_minute / 60 + 1e-3


def test_a_months_tokens_end_with_a_quota_error_that_no_client_retries() -> None:
    desk = Desk()
    asking = caller(monthly_tokens=100)
    desk.ask(asking, prompt_tokens=60, completion_tokens=39)
    desk.ask(asking, prompt_tokens=60, completion_tokens=1)

    error = desk.refusal(asking)

    assert error_body(error).decode() == (
        '{"error":{"message":"You exceeded this key\'s quota: 160 of this month\'s 100 tokens are used. It begins anew '
        'with the month (UTC).","type":"insufficient_quota","param":null,"code":"insufficient_quota"}}'
    )
    assert headers(error) == {"x-should-retry": "false"}
    assert desk.refusals == ["monthly_tokens"]


def test_a_budget_counts_dollars() -> None:
    desk = Desk()
    asking = caller(monthly_budget_usd=2.0)
    desk.ask(asking, prompt_tokens=1000, completion_tokens=50, cached_tokens=500)  # .5 + .05 + .5
    desk.ask(asking, prompt_tokens=1000, completion_tokens=0)

    assert desk.refusal(asking).message == (
        "You exceeded this key's quota: 2.05 of this month's 2.00 dollars are used. "
        "It begins anew with the month (UTC)."
    )
    assert [record.cost_usd for record in desk.written] == [pytest.approx(1.05), pytest.approx(1.0)]
    assert desk.refusals == ["monthly_budget_usd"]


def test_the_operators_prices_count() -> None:
    desk = Desk(own_prices={"gpt-5": (1.0, 1.0)})
    desk.ask(caller(monthly_budget_usd=2.0), prompt_tokens=1_000_000)

    assert desk.written[0].cost_usd == pytest.approx(1.0)


def test_what_is_written_down_is_the_request_with_its_key() -> None:
    desk = Desk()
    desk.ask(caller(monthly_tokens=100), prompt_tokens=60, completion_tokens=3, cached_tokens=20)

    assert desk.written == [
        UsageRecord(
            id="use_1-000000000001",
            key_id="key_1",
            tenant_id="acme",
            upstream="openai",
            model="gpt-5",
            prompt_tokens=60,
            completion_tokens=3,
            cached_tokens=20,
            is_estimated=False,
            cost_usd=0.0,
            created_at="2026-11-30T23:59:00.000Z",
        )
    ]


def test_a_model_that_is_no_text_is_written_down_all_the_same() -> None:
    desk = Desk()
    meter = desk.limiter.admit(caller(monthly_tokens=100))
    assert meter is not None
    meter.settle(Usage(upstream="openai", model="cut \ud83d"))

    assert desk.written[0].model == "cut ?"


def test_a_request_is_counted_once() -> None:
    desk = Desk()
    meter = desk.limiter.admit(caller(monthly_tokens=100))
    assert isinstance(meter, Meter)
    meter.settle(Usage(upstream="openai", prompt_tokens=60))
    meter.settle(Usage(upstream="openai", prompt_tokens=60))

    assert len(desk.written) == 1


def test_what_no_upstream_counted_is_estimated_from_the_text() -> None:
    desk = Desk()
    desk.ask(caller(tokens_per_minute=100), prompt_chars=400, completion_chars=41)

    (record,) = desk.written
    assert (record.prompt_tokens, record.completion_tokens, record.is_estimated) == (100, 11, True)


def test_a_failed_request_used_nothing() -> None:
    desk = Desk()
    desk.ask(caller(monthly_tokens=100))

    (record,) = desk.written
    assert (record.prompt_tokens, record.completion_tokens, record.is_estimated) == (0, 0, False)


def test_what_the_database_counted_of_all_processes_and_what_it_has_not_add_up_once() -> None:
    desk = Desk()
    asking = caller(monthly_tokens=1000)
    for _ in range(3):
        desk.ask(asking, prompt_tokens=100)
    # Two of ours have landed, and 500 tokens of other processes.
    desk.uses = Uses("2026-11", {"key_1": MonthUse(9, 650, 50, 0.0)}, n_landed=2)
    desk.ask(asking, prompt_tokens=100)
    desk.ask(asking, prompt_tokens=100)

    assert "1000 of this month's 1000" in desk.refusal(asking).message
    desk.uses = Uses("2026-11", {"key_1": MonthUse(12, 920, 50, 0.0)}, n_landed=5)
    assert desk.limiter.admit(asking) is not None


def test_a_new_process_goes_on_where_the_last_one_stopped() -> None:
    desk = Desk(uses=Uses("2026-11", {"key_1": MonthUse(9, 950, 50, 0.0), "key_2": MonthUse(1, 1, 1, 0.0)}))

    assert "1000 of this month's 1000" in desk.refusal(caller(monthly_tokens=1000)).message
    assert desk.limiter.admit(caller("key_2", monthly_tokens=1000)) is not None


def test_a_month_begins_anew_whatever_the_database_last_said() -> None:
    desk = Desk(uses=Uses("2026-11", {"key_1": MonthUse(9, 950, 50, 0.0)}))
    asking = caller(monthly_tokens=1000)
    desk.refusal(asking)
    desk.clock.advance(60)

    desk.ask(asking, prompt_tokens=999)
    assert desk.limiter.admit(asking) is not None
    desk.uses = Uses("2026-12", {"key_1": MonthUse(1, 999, 0, 0.0)}, n_landed=1)
    desk.ask(asking, prompt_tokens=1)
    assert "1000 of this month's 1000" in desk.refusal(asking).message
    assert [record.created_at[:7] for record in desk.written] == ["2026-12", "2026-12"]


def test_a_year_ends_too() -> None:
    desk = Desk()
    desk.clock.advance(31 * 86400)
    asking = caller(monthly_tokens=10)
    desk.ask(asking, prompt_tokens=10)
    desk.refusal(asking)
    desk.clock.advance(60)

    assert desk.limiter.admit(asking) is not None


def test_while_the_database_is_away_uses_add_up_in_bounded_memory() -> None:
    desk = Desk()
    asking = caller(monthly_tokens=5000)
    for _ in range(2500):
        desk.ask(asking, prompt_tokens=1)
    account = desk.limiter._accounts["key_1"]

    assert (len(account.uncounted), account.used_tokens) == (1000, 2500)
    desk.uses = Uses("2026-11", {"key_1": MonthUse(2000, 2000, 0, 0.0)}, n_landed=2000)
    desk.limiter.admit(asking)
    assert account.used_tokens == 2000 + 1501  # the newest stand together until all of them have landed
    desk.uses = Uses("2026-11", {"key_1": MonthUse(2500, 2500, 0, 0.0)}, n_landed=2500)
    desk.limiter.admit(asking)
    assert account.used_tokens == 2500


def test_a_request_over_its_month_takes_nothing_from_its_minute() -> None:
    desk = Desk(uses=Uses("2026-11", {"key_1": MonthUse(1, 10, 0, 0.0)}))

    assert desk.refusal(caller(monthly_tokens=10, requests_per_minute=1)).code == "insufficient_quota"
    assert desk.n_admitted(caller(monthly_tokens=11, requests_per_minute=1)) == 1


@given(st.floats(0, 1e6))
def test_a_duration_is_never_shorter_than_the_time_and_hardly_longer(seconds: float) -> None:
    match = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?([\d.]+)(m?)s", duration(seconds))

    assert match is not None
    hours, minutes, rest, is_milli = match.groups()
    told_s = int(hours or 0) * 3600 + int(minutes or 0) * 60 + float(rest) / (1000 if is_milli else 1)
    assert seconds - 1e-6 <= told_s <= seconds + 1
    assert float(rest) < 60 or is_milli
