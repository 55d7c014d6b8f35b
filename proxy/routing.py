"""Which upstream serves a request: the first whose model patterns match."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from proxy.errors import ApiError, model_not_found, not_found
from proxy.upstream import Upstream


@dataclass(frozen=True, slots=True)
class Route:
    """An upstream and the model names that it serves; ``*`` stands for any characters."""

    upstream: Upstream
    models: tuple[str, ...]
    credential: bytes = b""  # the upstream's own key, used in keys mode

    def __post_init__(self) -> None:
        if not self.models:
            raise ValueError(f"upstream {self.upstream.name!r} serves no models")


class Router:
    """Chooses among the configured upstreams, in their order."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self.routes = tuple(routes)
        self._patterns = [(compile_models(route.models), route) for route in routes]
        self._catch_all = next((route for route in routes if "*" in route.models), None)
        self._only_catch_all = self._catch_all if self.routes and self.routes[0] is self._catch_all else None
        self._first_direct = next((route for route in routes if not route.upstream.is_learned_only), None)

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
            raise not_found(path)
        return self._first_direct


def compile_models(models: Sequence[str]) -> re.Pattern[str]:
    """Return one pattern for all of *models*.

    >>> pattern = compile_models(("gpt-*", "o[3]"))
    >>> [bool(pattern.fullmatch(name)) for name in ("gpt-5", "GPT-5", "o3", "o[3]", "my-gpt-5")]
    [True, False, False, True, False]
    """
    alternatives = (".*".join(re.escape(part) for part in model.split("*")) for model in models)
    return re.compile("|".join(alternatives), re.DOTALL)
