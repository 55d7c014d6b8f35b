"""What a key may do per minute and per month; beyond it a request is answered 429 as OpenAI answers it.

Rates are token buckets in this process: with several workers each holds its equal part. A request is let in while
there is anything left; the tokens that it used are taken out after its reply, so a bucket may owe.
A month's use is what the database has counted plus what this process wrote since and has not seen counted yet.
"""

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

import msgspec

from proxy.authentication import Caller
from proxy.errors import ApiError, Header
from store.clock import Clock, iso
from store.config import LimitsSection
from store.prices import PriceBook
from store.records import storable
from store.usage import MonthUse, UsageRecord, Uses, encode_usage, usage_id

CHARS_PER_TOKEN: Final = 4  # of what no upstream counted
_MAX_UNCOUNTED: Final = 1000  # uses of a key remembered one by one until the database counted them

_NO_USE: Final = MonthUse()
# The clients of OpenAI and Anthropic try a 429 again at once otherwise; a month does not pass that fast.
_NO_RETRY: Final = (b"x-should-retry", b"false")


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one request, as far as limits go."""

    upstream: str  # its name
    model: str = ""
    prompt_tokens: int | None = None  # all of the prompt's, the cached ones included; None: nobody counted
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    prompt_chars: int = 0  # of text; looked at when nobody counted
    completion_chars: int = 0


class TokenBucket:
    """So much a minute, a minute's worth at once. Every method is told the time, in seconds."""

    __slots__ = ("_at_s", "_level", "_per_s", "capacity")

    def __init__(self, per_minute: float, now_s: float, *, n_used: float = 0.0) -> None:
        """Take how much a minute, and how much of the first minute is used already."""
        self.capacity = max(per_minute, 1.0)  # a share below one would never let anything in
        self._per_s = per_minute / 60
        self._level = self.capacity - n_used
        self._at_s = now_s

    def level(self, now_s: float) -> float:
        """Return what is left; below 0 it owes."""
        if now_s > self._at_s:
            self._level = min(self._level + (now_s - self._at_s) * self._per_s, self.capacity)
            self._at_s = now_s
        return self._level

    def take(self, amount: float) -> None:
        self._level -= amount

    def wait_s(self, level: float, now_s: float) -> float:
        """Return the seconds until it holds *level*."""
        return max(level - self.level(now_s), 0.0) / self._per_s


class _Account:
    """What one key used, as this process knows it."""

    __slots__ = ("limits", "requests", "seen", "tokens", "uncounted", "used_tokens", "used_usd")

    def __init__(self, limits: LimitsSection) -> None:
        self.limits = limits
        self.requests: TokenBucket | None = None
        self.tokens: TokenBucket | None = None
        self.uncounted: deque[tuple[int, int, float]] = deque()  # number, tokens, dollars
        self.seen: Uses | None = None  # that the next two are made of, besides what is uncounted
        self.used_tokens = 0  # this month
        self.used_usd = 0.0

    def add(self, number: int, n_tokens: int, cost_usd: float) -> None:
        """Take note of a use that the database has not counted yet."""
        self.used_tokens += n_tokens
        self.used_usd += cost_usd
        if len(self.uncounted) == _MAX_UNCOUNTED:  # the database is away: the newest stand together
            _, more_tokens, more_usd = self.uncounted.pop()
            n_tokens, cost_usd = n_tokens + more_tokens, cost_usd + more_usd
        self.uncounted.append((number, n_tokens, cost_usd))

    def count(self, uses: Uses, key_id: str, month: str) -> None:
        """Bring the month's use up to what the database has counted."""
        while self.uncounted and self.uncounted[0][0] <= uses.n_landed:
            self.uncounted.popleft()
        counted = uses.by_key.get(key_id, _NO_USE) if uses.month == month else _NO_USE
        n_counted = counted.prompt_tokens + counted.completion_tokens
        self.used_tokens = n_counted + sum(use[1] for use in self.uncounted)
        self.used_usd = counted.cost_usd + sum(use[2] for use in self.uncounted)
        self.seen = uses


class Meter:
    """One request of a key whose tokens are limited: what it used is told at its end."""

    __slots__ = ("_account", "_caller", "_is_settled", "_limiter")

    def __init__(self, limiter: "Limiter", account: _Account, caller: Caller) -> None:
        self._limiter = limiter
        self._account = account
        self._caller = caller
        self._is_settled = False

    def settle(self, usage: Usage) -> None:
        """Take note of what the request used; only the first call counts."""
        if not self._is_settled:
            self._is_settled = True
            self._limiter.charge(self._account, self._caller, usage)


class Limiter:
    """The limits of all keys in one process.

    Args:
        n_workers: processes that share the port.
        process: this process's part of the ids of uses.
        write: takes lines for the segment.
        uses: tells what the database has counted.
        prices: of models; read when the first key with a budget in dollars comes.
        providers: of the upstreams, by their names.
        clock: tells the time.
        count_refusal: told the name of the limit for each request that is refused.
    """

    def __init__(
        self,
        *,
        n_workers: int,
        process: str,
        write: Callable[[bytes], object],
        uses: Callable[[], Uses],
        prices: PriceBook,
        providers: Mapping[str, str],
        clock: Clock,
        count_refusal: Callable[[str], None],
    ) -> None:
        self._n_workers = n_workers
        self._process = process
        self._write = write
        self._uses = uses
        self._prices = prices
        self._providers = providers
        self._clock = clock
        self._count_refusal = count_refusal
        self._accounts: dict[str, _Account] = {}
        self._n_uses = 0
        self._month = ""
        self._month_ends_s = 0.0

    def admit(self, caller: Caller) -> Meter | None:
        """Let a request in; return what is told its use, None when nobody counts that.

        Raises:
            ApiError: 429, a limit of the caller's key is reached.
        """
        limits = caller.limits
        if limits is None:
            return None
        now_s = self._clock.now_s()
        account = self._accounts.get(caller.key_id)
        if account is None or account.limits is not limits:
            account = self._open(caller.key_id, limits, now_s)
        if limits.monthly_tokens or limits.monthly_budget_usd:
            self._check_month(account, caller.key_id, limits, now_s)
        requests, tokens = account.requests, account.tokens
        if tokens is not None and tokens.level(now_s) <= 0:
            raise self._refuse("tokens", account, now_s)
        if requests is not None:
            if requests.level(now_s) < 1:
                raise self._refuse("requests", account, now_s)
            requests.take(1)
        is_metered = limits.tokens_per_minute or limits.monthly_tokens or limits.monthly_budget_usd
        return Meter(self, account, caller) if is_metered else None

    def charge(self, account: _Account, caller: Caller, usage: Usage) -> None:
        """Take *usage* out of what the caller may use, and write it down for the database."""
        now_s = self._clock.now_s()
        n_prompt, n_completion, is_estimated = counted_tokens(usage)
        cost_usd = 0.0
        if account.limits.monthly_budget_usd:
            n_cached = usage.cached_tokens or 0
            provider = self._providers.get(usage.upstream, "")
            cost_usd = self._prices.cost_usd(usage.model, provider, n_prompt, n_completion, n_cached)
        if account.tokens is not None:
            account.tokens.level(now_s)
            account.tokens.take(n_prompt + n_completion)
        self._n_uses += 1
        self._roll_month(now_s)
        account.add(self._n_uses, n_prompt + n_completion, cost_usd)
        record = UsageRecord(
            id=usage_id(self._process, self._n_uses),
            key_id=caller.key_id,
            tenant_id=caller.tenant_id,
            upstream=usage.upstream,
            model=storable(usage.model),
            prompt_tokens=n_prompt,
            completion_tokens=n_completion,
            cached_tokens=usage.cached_tokens or 0,
            is_estimated=is_estimated,
            cost_usd=cost_usd,
            created_at=iso(now_s),
        )
        self._write(encode_usage(record))

    def _open(self, key_id: str, limits: LimitsSection, now_s: float) -> _Account:
        """Return the key's account under *limits*; what it used under earlier ones stays used."""
        account = self._accounts.get(key_id)
        if account is None:
            account = self._accounts[key_id] = _Account(limits)
        if limits.monthly_budget_usd:
            self._prices.load()
        account.limits = limits
        account.requests = self._bucket(limits.requests_per_minute, account.requests, now_s)
        account.tokens = self._bucket(limits.tokens_per_minute, account.tokens, now_s)
        return account

    def _bucket(self, per_minute: int, earlier: TokenBucket | None, now_s: float) -> TokenBucket | None:
        if not per_minute:
            return None
        n_used = 0.0 if earlier is None else earlier.capacity - earlier.level(now_s)
        return TokenBucket(per_minute / self._n_workers, now_s, n_used=n_used)

    def _check_month(self, account: _Account, key_id: str, limits: LimitsSection, now_s: float) -> None:
        self._roll_month(now_s)
        uses = self._uses()
        if account.seen is not uses:
            account.count(uses, key_id, self._month)
        if limits.monthly_tokens and account.used_tokens >= limits.monthly_tokens:
            self._count_refusal("monthly_tokens")
            raise _quota_error(f"{account.used_tokens} of this month's {limits.monthly_tokens} tokens are used")
        if limits.monthly_budget_usd and account.used_usd >= limits.monthly_budget_usd:
            self._count_refusal("monthly_budget_usd")
            raise _quota_error(
                f"{account.used_usd:.2f} of this month's {limits.monthly_budget_usd:.2f} dollars are used"
            )

    def _roll_month(self, now_s: float) -> None:
        """Begin a new month when it is time: nothing of the one before counts against it."""
        if now_s < self._month_ends_s and self._month:
            return
        day = datetime.fromtimestamp(now_s, UTC)
        self._month = f"{day:%Y-%m}"
        self._month_ends_s = datetime(day.year + day.month // 12, day.month % 12 + 1, 1, tzinfo=UTC).timestamp()
        for account in self._accounts.values():
            account.uncounted.clear()
            account.used_tokens, account.used_usd, account.seen = 0, 0.0, None

    def _refuse(self, unit: str, account: _Account, now_s: float) -> ApiError:
        limits, bucket = account.limits, account.tokens if unit == "tokens" else account.requests
        assert bucket is not None
        wait_s = bucket.wait_s(1.0, now_s)
        name, limit = ("TPM", limits.tokens_per_minute) if unit == "tokens" else ("RPM", limits.requests_per_minute)
        self._count_refusal(f"{unit}_per_minute")
        headers = [(b"retry-after", b"%d" % max(math.ceil(wait_s), 1))]
        headers += _rate_headers(b"requests", limits.requests_per_minute, account.requests, now_s)
        headers += _rate_headers(b"tokens", limits.tokens_per_minute, account.tokens, now_s)
        return ApiError(
            429,
            f"Rate limit reached for this key on {unit} per min ({name}): Limit {limit}. "
            f"Please try again in {duration(wait_s)}.",
            type=unit,
            code="rate_limit_exceeded",
            headers=headers,
        )


def counted_tokens(usage: Usage) -> tuple[int, int, bool]:
    """Return tokens of prompt and reply, and whether they are estimated because no upstream counted any.

    >>> counted_tokens(Usage(upstream="a", prompt_tokens=12)), counted_tokens(Usage(upstream="a", prompt_chars=10))
    ((12, 0, False), (3, 0, True))
    """
    if usage.prompt_tokens is None and usage.completion_tokens is None:
        n_prompt, n_completion = (-(-n // CHARS_PER_TOKEN) for n in (usage.prompt_chars, usage.completion_chars))
        return n_prompt, n_completion, bool(n_prompt or n_completion)
    return usage.prompt_tokens or 0, usage.completion_tokens or 0, False


def duration(seconds: float) -> str:
    """Return *seconds* as OpenAI's ``x-ratelimit-reset-*`` headers say it.

    >>> [duration(seconds) for seconds in (0.0201, 1, 7.66, 360, 3725)]
    ['21ms', '1s', '7.66s', '6m0s', '1h2m5s']
    """
    milliseconds, hundredths, whole = (math.ceil(seconds * parts) for parts in (1000, 100, 1))
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    if hundredths < 6000:
        return f"{hundredths / 100:.4g}s"
    minutes, rest_s = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{rest_s}s" if hours else f"{minutes}m{rest_s}s"


def _rate_headers(unit: bytes, limit: int, bucket: TokenBucket | None, now_s: float) -> Sequence[Header]:
    if bucket is None:
        return ()
    return (
        (b"x-ratelimit-limit-" + unit, b"%d" % limit),
        (b"x-ratelimit-remaining-" + unit, b"%d" % max(bucket.level(now_s), 0)),
        (b"x-ratelimit-reset-" + unit, duration(bucket.wait_s(bucket.capacity, now_s)).encode()),
    )


def _quota_error(reason: str) -> ApiError:
    return ApiError(
        429,
        f"You exceeded this key's quota: {reason}. It begins anew with the month (UTC).",
        type="insufficient_quota",
        code="insufficient_quota",
        headers=[_NO_RETRY],
    )
