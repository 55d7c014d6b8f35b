"""Models to upstreams, and whoever comes after them."""

from dataclasses import dataclass, replace

import pytest

from proxy.errors import ApiError
from proxy.routing import Route, Router
from proxy.upstream import UpstreamRequest, UpstreamResponse


@dataclass(frozen=True)
class Nobody:
    name: str
    is_learned_only: bool = False

    async def send(self, request: UpstreamRequest) -> UpstreamResponse:
        raise NotImplementedError

    async def close(self) -> None:
        raise NotImplementedError


GPT = Route(Nobody("gpt"), ("gpt-*", "o3"))
CLAUDE = Route(Nobody("claude", is_learned_only=True), ("claude-*",))
REST = Route(Nobody("rest"), ("*",))


@pytest.mark.parametrize(
    ("model", "name"), [("gpt-5", "gpt"), ("o3", "gpt"), ("o3-mini", "rest"), ("claude-x", "claude"), (None, "rest")]
)
def test_the_first_upstream_whose_models_match_serves(model: str | None, name: str) -> None:
    assert Router([GPT, CLAUDE, REST]).for_model(model).upstream.name == name


def test_an_unknown_model_is_a_404_that_names_it() -> None:
    with pytest.raises(ApiError, match="`llama` does not exist") as caught:
        Router([GPT, CLAUDE]).for_model("llama")
    assert (caught.value.status, caught.value.code, caught.value.param) == (404, "model_not_found", "model")


def test_a_missing_model_without_an_upstream_for_all_is_a_400() -> None:
    with pytest.raises(ApiError) as caught:
        Router([GPT]).for_model(None)
    assert (caught.value.status, caught.value.param) == (400, "model")


def test_other_paths_go_to_the_first_upstream_that_takes_any() -> None:
    assert Router([CLAUDE, REST]).for_path("/v1/models").upstream.name == "rest"


def test_other_paths_are_unknown_where_no_upstream_takes_them() -> None:
    with pytest.raises(ApiError) as caught:
        Router([CLAUDE]).for_path("/v1/models")
    assert caught.value.status == 404


def test_an_upstream_without_fallbacks_is_alone() -> None:
    assert Router([GPT, REST]).line(GPT) == (GPT,)


def test_fallbacks_come_after_the_upstream_that_serves_the_model_whatever_their_own_models_say() -> None:
    first = replace(GPT, fallbacks=("rest", "claude"))
    router = Router([first, CLAUDE, REST])

    assert [route.upstream.name for route in router.line(router.for_model("gpt-5"))] == ["gpt", "rest", "claude"]


def test_upstreams_may_stand_in_for_each_other() -> None:
    one, other = replace(GPT, fallbacks=("rest",)), replace(REST, fallbacks=("gpt",))
    router = Router([one, other])

    assert [router.line(route) for route in (one, other)] == [(one, other), (other, one)]
