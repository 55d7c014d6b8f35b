"""Which upstream serves a request: the first whose model patterns match; and which come after it when it fails."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Self

from proxy.breaker import Breaker
from proxy.errors import ApiError, model_not_found, not_found, only_chat
from proxy.upstream import Upstream
from store.config import UpstreamSection


@dataclass(frozen=True, slots=True)
class Retries:
    """How often, and how fast, a failed try is made again."""

    limit: int = 0
    base_s: float = 0.0
    max_s: float = 0.0  # the longest wait, also the longest ``retry-after`` that is waited for


NO_RETRIES: Final = Retries()


@dataclass(frozen=True, slots=True, eq=False)
class Route:
    """An upstream, the model names that it serves (``*`` stands for any characters), and what happens when it fails."""

    upstream: Upstream
    models: tuple[str, ...]
    credential: bytes = b""  # the upstream's own key, used in keys mode
    retries: Retries = NO_RETRIES
    breaker: Breaker | None = None  # None: it never rests
    fallbacks: tuple[str, ...] = ()  # names of upstreams
    rename: Mapping[str, str] = field(default_factory=dict)  # {name as asked for: name as this upstream knows it}

    def __post_init__(self) -> None:
        if not self.models:
            raise ValueError(f"upstream {self.upstream.name!r} serves no models")

    @classmethod
    def of(cls, section: UpstreamSection, upstream: Upstream, credential: bytes) -> Self:
        """Return the route to *upstream* as its *section* of the settings has it."""
        return cls(
            upstream,
            section.models,
            credential,
            retries=Retries(section.retries, section.retry_base_s, section.retry_max_s),
            breaker=Breaker(section.breaker_failures, section.breaker_open_s) if section.breaker_failures else None,
            fallbacks=section.fallbacks,
            rename=section.rename,
        )

    @property
    def is_tried_once(self) -> bool:
        """Whether a request is sent to it whatever happened before, and once."""
        return self.breaker is None and not self.retries.limit


class Router:
    """Chooses among the configured upstreams, in their order."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self.routes = tuple(routes)
        self._patterns = [(compile_models(route.models), route) for route in routes]
        self._catch_all = next((route for route in routes if "*" in route.models), None)
        self._only_catch_all = self._catch_all if self.routes and self.routes[0] is self._catch_all else None
        self._first_direct = next((route for route in routes if not route.upstream.is_learned_only), None)
        by_name = {route.upstream.name: route for route in routes}
        fallbacks = {name: route.fallbacks for name, route in by_name.items()}
        self._lines = {name: tuple(by_name[each] for each in line(name, fallbacks)) for name in by_name}
        self._direct_lines = {
            name: (first, *(route for route in others if not route.upstream.is_learned_only))
            for name, (first, *others) in self._lines.items()
        }

    @property
    def is_asked_by_model(self) -> bool:
        """Whether the model decides; off: one upstream serves them all, so that nobody need look for it."""
        return self._only_catch_all is None

    def for_model(self, model: str | None) -> Route:
        """Return the first route that serves *model*; without a model, the first that serves ``*``.

        Raises:
            ApiError: 404 model_not_found, or 400 without a model when no upstream serves all.
        """
        if self._only_catch_all is not None:
            return self._only_catch_all
        if model is None:
            if self._catch_all is None:
                raise ApiError(400, "You must provide a model.", param="model", code="missing_required_parameter")
            return self._catch_all
        for pattern, route in self._patterns:
            if pattern.fullmatch(model):
                return route
        raise model_not_found(model)

    def for_path(self, path: str) -> Route:
        """Return the first route that anything can be passed through to.

        Raises:
            ApiError: 404, every upstream serves learned endpoints alone.
        """
        if self._first_direct is None:
            raise only_chat(self.routes[0].upstream.name, path) if self.routes else not_found(path)
        return self._first_direct

    def line(self, route: Route, *, is_chat: bool = True) -> tuple[Route, ...]:
        """Return who is asked, in this order, for what *route* serves: itself, then its fallbacks.

        *is_chat*: whether it is a chat completion, which all upstreams serve; else only those that serve any path.
        """
        return (self._lines if is_chat else self._direct_lines)[route.upstream.name]


def line(first: str, fallbacks: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Return *first* and whoever comes after it when it fails, each once.

    A fallback's own fallbacks come right after it, for they are tried when it fails; one upstream is asked once.

    >>> line("a", {"a": ["b", "d"], "b": ["c", "a"], "c": [], "d": ["b"]})
    ('a', 'b', 'c', 'd')
    """
    found: dict[str, None] = {}
    waiting = [first]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name] = None
            waiting += reversed(fallbacks[name])
    return tuple(found)


def compile_models(models: Sequence[str]) -> re.Pattern[str]:
    """Return one pattern for all of *models*.

    >>> pattern = compile_models(("gpt-*", "o[3]"))
    >>> [bool(pattern.fullmatch(name)) for name in ("gpt-5", "GPT-5", "o3", "o[3]", "my-gpt-5")]
    [True, False, False, True, False]
    """
    alternatives = (".*".join(re.escape(part) for part in model.split("*")) for model in models)
    return re.compile("|".join(alternatives), re.DOTALL)
