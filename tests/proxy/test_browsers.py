"""What browsers are told: CORS for signals, the script, and what a key in a page may do."""

import base64
import hashlib
from pathlib import Path

import pytest

from proxy.authentication import Caller, KeyAuthenticator, Keys
from proxy.browsers import FeedbackScript, script_tag
from store.config import Config, LimitsSection
from store.tenants import LiveKey, hash_key
from tests.proxy.wire import Answer, Client, FakeLearning, RawUpstream, Stack, answering, make_limiter, plain, section

PAGE = b"https://app.example"
FEEDBACK = b"/v1/feedback"
ORIGIN = [(b"origin", PAGE)]


def ask(
    config: Config,
    method: bytes,
    path: bytes,
    headers: list[tuple[bytes, bytes]],
    *,
    allowed: tuple[str, ...] = (PAGE.decode(),),
) -> Answer:
    with (
        RawUpstream(answering(plain(b"{}"))) as upstream,
        Stack(config, [section(upstream, config)], allowed_origins=allowed).running() as port,
        Client(port) as client,
    ):
        return client.ask(method, path, b"" if method == b"OPTIONS" else b'{"signal":1}', headers)


def allowed_origin(answer: Answer) -> bytes | None:
    return dict(answer.headers).get(b"access-control-allow-origin")


def test_a_page_that_is_allowed_may_ask_send_and_read_the_answer(config: Config) -> None:
    asked = ask(config, b"OPTIONS", FEEDBACK, [*ORIGIN, (b"access-control-request-method", b"POST")])
    sent = ask(config, b"POST", FEEDBACK, ORIGIN)
    told = dict(asked.headers)
    assert (asked.status, allowed_origin(asked)) == (200, PAGE)
    assert told[b"access-control-allow-methods"] == b"POST"
    assert {name.strip() for name in told[b"access-control-allow-headers"].split(b",")} == {
        b"authorization",
        b"content-type",
    }
    assert (sent.status, allowed_origin(sent)) == (201, PAGE)
    assert dict(sent.headers)[b"vary"] == b"origin"


def test_a_signal_may_be_taken_back_from_a_page(config: Config) -> None:
    asked = ask(config, b"OPTIONS", FEEDBACK + b"/sig_1", ORIGIN)
    assert dict(asked.headers)[b"access-control-allow-methods"] == b"DELETE"


def test_a_page_may_read_why_its_signal_was_refused(config: Config) -> None:
    answer = ask(config, b"DELETE", FEEDBACK + b"/none", ORIGIN)
    assert (answer.status, allowed_origin(answer)) == (404, PAGE)


@pytest.mark.parametrize("method", [b"OPTIONS", b"POST"])
@pytest.mark.parametrize("allowed", [(), ("https://other.example",), ("https://app.example:8443",)])
def test_other_pages_are_refused_whether_they_ask_first_or_not(
    config: Config, method: bytes, allowed: tuple[str, ...]
) -> None:
    answer = ask(config, method, FEEDBACK, ORIGIN, allowed=allowed)
    assert (answer.status, allowed_origin(answer)) == (403, None)


def test_a_star_stands_for_every_page(config: Config) -> None:
    assert allowed_origin(ask(config, b"POST", FEEDBACK, ORIGIN, allowed=("*",))) == PAGE


def test_pages_of_the_proxys_own_address_and_programs_need_no_permission(config: Config) -> None:
    program = ask(config, b"POST", FEEDBACK, [], allowed=())
    own = ask(config, b"POST", FEEDBACK, [(b"origin", b"https://proxy.test")], allowed=())
    assert (program.status, own.status) == (201, 201)


def test_chat_is_not_opened_to_pages(config: Config) -> None:
    answer = ask(config, b"POST", b"/v1/chat/completions", ORIGIN, allowed=("*",))
    assert allowed_origin(answer) is None


def test_the_script_is_served_to_every_page_under_the_hash_that_is_printed(config: Config) -> None:
    answer = ask(config, b"GET", b"/feedback.js", ORIGIN, allowed=())
    told = dict(answer.headers)
    digest = base64.b64encode(hashlib.sha384(answer.body).digest()).decode()
    assert (answer.status, told[b"access-control-allow-origin"]) == (200, b"*")
    assert told[b"content-type"] == b"text/javascript; charset=utf-8"
    assert f'integrity="sha384-{digest}"' in script_tag("http://x", FeedbackScript().integrity)


def test_the_script_is_small_and_loads_nothing(config: Config) -> None:
    source = Path(__file__).parents[2].joinpath("proxy", "feedback.js").read_text(encoding="utf-8")
    assert len(source.encode()) < 10_000
    assert "import" not in source
    assert "cookie" not in source.replace("no cookie", "")


def test_a_key_of_a_page_has_its_rate_and_those_of_apps_do_not(config: Config) -> None:
    limits = LimitsSection(2, 0, 0.0, 0)
    keys: Keys = {
        hash_key(f"tut-{scope}"): LiveKey(f"key_{scope}", "acme", scope, limits) for scope in ("feedback", "app")
    }
    statuses = {}
    with (
        RawUpstream(answering(plain(b"{}"))) as upstream,
        Stack(
            config,
            [section(upstream, config)],
            FakeLearning(),
            authenticator=KeyAuthenticator(lambda: keys),
            limiter=make_limiter([]),
        ).running() as port,
        Client(port) as client,
    ):
        for scope in ("feedback", "app"):
            key = [(b"authorization", b"Bearer tut-" + scope.encode())]
            statuses[scope] = [client.ask(b"POST", FEEDBACK, b"1", key).status for _ in range(4)]
    assert statuses == {"feedback": [201, 201, 429, 429], "app": [201] * 4}


def test_a_caller_of_open_mode_counts_as_an_app() -> None:
    assert Caller("default").scope == "app"
