"""The learner's models, through litellm: the one place on this side that imports it.

Calls are synchronous, retried, metered and capped per run. litellm takes seconds to import, so that happens when the
first model is configured, never at start. Prices are those of ``[prices]``, then of the list that litellm ships:
nothing is fetched.
"""

import json
import logging
import math
import os
import random
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, Final, Protocol

from learner.errors import BudgetExceededError, ModelError
from store.config import ModelsSection
from store.logs import tame_litellm
from store.prices import PriceBook

log = logging.getLogger(__name__)

Message = Mapping[str, Any]  # OpenAI's shape
Tool = Mapping[str, Any]  # OpenAI's shape: {"type": "function", "function": {...}}

BACKOFF_S: Final = 0.5  # before the first retry; doubles with each further one
MAX_BACKOFF_S: Final = 30.0
MAX_ECHO_CHARS: Final = 8000  # of a refused answer that the model is shown again: each of them is paid for
MAX_ECHO_CALLS: Final = 8
RETRIED_STATUSES: Final = frozenset({408, 409, 429})  # and everything from 500 on


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool that the model wants to call; *arguments* is JSON text as the model wrote it, perhaps malformed."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Usage:
    """What calls cost; ``cost_usd`` holds only calls whose price is known."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: float = 0.0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.calls + other.calls,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.cost_usd + other.cost_usd,
        )

    def __sub__(self, other: "Usage") -> "Usage":
        return Usage(
            self.calls - other.calls,
            self.prompt_tokens - other.prompt_tokens,
            self.completion_tokens - other.completion_tokens,
            self.cost_usd - other.cost_usd,
        )


@dataclass(frozen=True, slots=True)
class Completion:
    """One answer of a model; *cost_usd* is 0.0 when its price is unknown."""

    text: str
    tool_calls: tuple[ToolCall, ...] = ()
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: float = 0.0

    def as_message(self) -> dict[str, Any]:
        """Return the answer as the assistant message that continues the conversation, cut where it is endless."""
        message: dict[str, Any] = {"role": "assistant", "content": self.text[:MAX_ECHO_CHARS]}
        if self.tool_calls:
            message["tool_calls"] = [
                {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": _echoed(call)}}
                for call in self.tool_calls[:MAX_ECHO_CALLS]
            ]
        return message


def _echoed(call: ToolCall) -> str:
    """Return the arguments as they may be sent: some providers' translations fail on what is no JSON object."""
    try:
        is_object = len(call.arguments) <= MAX_ECHO_CHARS and isinstance(json.loads(call.arguments), dict)
    except (ValueError, RecursionError):
        is_object = False
    return call.arguments if is_object else "{}"


@dataclass(slots=True)
class Meter:
    """What one run has spent, and the most that it may: dollars, and tokens, which have no unknown price."""

    max_cost_usd: float
    max_tokens: float = math.inf
    usage: Usage = field(default_factory=Usage)
    unpriced: set[str] = field(default_factory=set)  # models without a known price
    n_unanswered: int = 0  # calls that ended without an answer: whether they are on a provider's bill is not known
    rejected: list[str] = field(default_factory=list)  # why wordings of a model were not used

    def check(self) -> None:
        """Raise when nothing may be spent any more.

        Raises:
            BudgetExceededError: the cap is reached.
        """
        if self.usage.cost_usd >= self.max_cost_usd:
            raise BudgetExceededError(
                f"spent {self.usage.cost_usd:.4f} of max_cost_usd_per_run = {self.max_cost_usd:.4f} dollars"
            )
        n_tokens = self.usage.prompt_tokens + self.usage.completion_tokens
        if n_tokens >= self.max_tokens:
            raise BudgetExceededError(f"used {n_tokens:,} of max_tokens_per_run = {self.max_tokens:,} tokens")

    def notes(self) -> list[str]:
        """Return what a reader of the run should know about its costs and about answers that were of no use."""
        notes = [
            f"the price of {name} is unknown: counted as 0 dollars; add it to [prices]"
            for name in sorted(self.unpriced)
        ]
        if self.n_unanswered:
            notes.append(f"{self.n_unanswered} calls got no answer: what a provider may charge for them is not counted")
        if not self.rejected:
            return notes
        reasons = "; ".join(dict.fromkeys(self.rejected))
        return [*notes, f"{len(self.rejected)} wordings of the model were rejected: {reasons}"]


class Model(Protocol):
    """Answers messages. Tests pass a scripted one."""

    def complete(
        self, messages: Sequence[Message], *, tools: Sequence[Tool] = (), json_object: bool = False
    ) -> Completion:
        """Return the model's answer.

        Raises:
            BudgetExceededError: the run may not spend more.
            ModelError: no answer after all tries.
        """
        ...


@dataclass(frozen=True, slots=True)
class Models:
    """The configured models, None where none is named, and the meter that they share."""

    prescreen: Model | None
    extract: Model | None
    wording: Model | None
    meter: Meter
    renew: Callable[[], "Models"] | None = field(default=None, repr=False, compare=False)

    def for_run(self) -> "Models":
        """Return the same models with a fresh meter: call it once at the start of each run."""
        return self if self.renew is None else self.renew()


def no_models() -> Models:
    """Return the models of an installation that names none: rules and templates do the work."""
    return Models(None, None, None, Meter(max_cost_usd=0.0), renew=no_models)


def load_models(
    section: ModelsSection,
    prices: Mapping[str, tuple[float, ...]],
    *,
    sleep: Callable[[float], None] = time.sleep,
) -> Models:
    """Return the models that *section* names; litellm is imported only when there is one.

    *prices* are the operator's own (``[prices]``), by the name in *section* or by what follows its provider.
    """
    if not (section.prescreen or section.extract or section.wording):
        return no_models()
    litellm = _import_litellm()
    book = PriceBook(prices)
    book.load()

    def renew() -> Models:
        meter = Meter(max_cost_usd=section.max_cost_usd_per_run, max_tokens=section.max_tokens_per_run)

        def model(name: str) -> Model | None:
            return LitellmModel(litellm, name, section, meter, book, sleep=sleep) if name else None

        return Models(model(section.prescreen), model(section.extract), model(section.wording), meter, renew=renew)

    return renew()


def _import_litellm() -> ModuleType:
    # Without it litellm fetches its price map over HTTP while it is imported.
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import litellm  # noqa: PLC0415  # seconds long: the one import inside a function
    litellm.suppress_debug_info = True
    litellm.drop_params = False
    tame_litellm()
    module: ModuleType = litellm
    return module


class LitellmModel:
    """One model by its litellm name."""

    def __init__(
        self,
        litellm: ModuleType,
        name: str,
        section: ModelsSection,
        meter: Meter,
        prices: PriceBook,
        *,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._litellm = litellm
        self._name = name
        self._section = section
        self._meter = meter
        self._prices = prices
        self._sleep = sleep
        self._takes_json_object = True

    def complete(
        self, messages: Sequence[Message], *, tools: Sequence[Tool] = (), json_object: bool = False
    ) -> Completion:
        request: dict[str, Any] = {"messages": [dict(message) for message in messages]}
        if tools:
            request["tools"] = [dict(tool) for tool in tools]
        if json_object and self._takes_json_object:
            request["response_format"] = {"type": "json_object"}
        attempt = 0
        while True:
            self._meter.check()
            try:
                response = self._litellm.completion(
                    model=self._name,
                    timeout=self._section.timeout_s,
                    max_retries=0,  # ours alone: the client's own would hide calls from the meter
                    num_retries=0,
                    # Any request with tools would otherwise import litellm's MCP gateway, which needs packages that
                    # litellm does not install by itself.
                    _skip_mcp_handler=True,
                    **self._address(),
                    **request,
                )
                return self._completion(response)
            except self._litellm.exceptions.UnsupportedParamsError as exc:
                if "response_format" not in request:
                    raise ModelError(f"{self._name}: {_first_line(exc)}") from exc
                self._takes_json_object = False  # the prompt asks for JSON as well
                del request["response_format"]
            # litellm passes on whatever a provider's client raises; all of it means: no answer.
            except Exception as exc:
                if not isinstance(exc, _EmptyReplyError) and not _is_refused(exc):
                    self._meter.n_unanswered += 1
                if attempt >= self._section.max_retries or not _is_passing(exc):
                    raise ModelError(f"{self._name}: {_first_line(exc)}") from exc
                log.warning("model %s: %s; trying again", self._name, _first_line(exc))
                self._sleep(_backoff_s(exc, attempt))
                attempt += 1

    def _address(self) -> dict[str, str]:
        address = {}
        if self._section.api_base:
            address["api_base"] = self._section.api_base
        if self._section.api_key_env:
            address["api_key"] = os.environ.get(self._section.api_key_env, "")
        elif self._section.api_base:
            address["api_key"] = "none"  # a local server asks for none, the client insists on one
        return address

    def _completion(self, response: Any) -> Completion:
        """Return what a reply says; whatever it says, it was answered, and so it is paid for.

        Raises:
            _EmptyReplyError: it says nothing.
        """
        usage = getattr(response, "usage", None)
        prompt_tokens = _number(getattr(usage, "prompt_tokens", 0))
        completion_tokens = _number(getattr(usage, "completion_tokens", 0))
        cost_usd = self._cost_usd(response, prompt_tokens, completion_tokens)
        self._meter.usage += Usage(1, prompt_tokens, completion_tokens, cost_usd)
        try:
            message = response.choices[0].message
        except (AttributeError, IndexError, TypeError) as exc:
            raise _EmptyReplyError("a reply without choices") from exc
        return Completion(
            text=_text(message.content),
            tool_calls=tuple(
                ToolCall(_text(call.id), _text(call.function.name), _text(call.function.arguments))
                for call in message.tool_calls or ()
            ),
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
            cost_usd=cost_usd,
        )

    def _cost_usd(self, response: Any, prompt_tokens: int, completion_tokens: int) -> float:
        provider, _, name = self._name.rpartition("/")
        names = (self._name, self._name.partition("/")[2], name)
        known = next((one for one in names if self._prices.find(one, provider) is not None), None)
        if known is not None:
            details = getattr(getattr(response, "usage", None), "prompt_tokens_details", None)
            n_cached = _number(getattr(details, "cached_tokens", 0))
            return self._prices.cost_usd(known, provider, prompt_tokens, completion_tokens, n_cached)
        if self._name not in self._meter.unpriced:
            log.warning("model %s: no known price", self._name)
            self._meter.unpriced.add(self._name)
        return 0.0


class _EmptyReplyError(Exception):
    """A reply of the right form that says nothing; the next may say something."""


def _number(value: Any) -> int:
    return int(value) if isinstance(value, int | float) and 0 <= value < math.inf else 0


def _text(value: Any) -> str:
    """Return *value* as text that can be stored and sent: none of UTF-16's lone halves."""
    text = value if isinstance(value, str) else "" if value is None else str(value)
    return text.encode("utf-8", "replace").decode("utf-8")


def _is_passing(exc: Exception) -> bool:
    """Return whether the same call may succeed later: rate limits, timeouts, lost connections, a server's error."""
    if isinstance(exc, _EmptyReplyError):
        return True
    status = getattr(exc, "status_code", None)
    if not isinstance(status, int):
        return False
    return status in RETRIED_STATUSES or status >= 500


def _is_refused(exc: Exception) -> bool:
    """Return whether the provider turned the call down before it did anything."""
    status = getattr(exc, "status_code", None)
    return isinstance(status, int) and 400 <= status < 500 and status != 408  # 408: also our own timeout


def _backoff_s(exc: Exception, attempt: int) -> float:
    headers = getattr(exc, "litellm_response_headers", None) or {}
    try:
        asked_s = float(headers.get("retry-after", 0))
    except ValueError:
        asked_s = 0.0
    # Jitter: learners that were refused together must not come back together.
    waited_s = BACKOFF_S * 2**attempt * (1 + random.random())  # noqa: S311
    delay_s: float = min(max(asked_s, waited_s), MAX_BACKOFF_S)
    return delay_s


def _first_line(exc: Exception) -> str:
    return str(exc).partition("\n")[0][:300]
