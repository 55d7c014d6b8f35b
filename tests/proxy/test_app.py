"""The endpoints of the data plane, their errors and what they ask of a caller."""

import json
from typing import Any

import pytest

from proxy.authentication import KeyAuthenticator, Keys
from proxy.errors import ApiError
from proxy.incoming import IncomingRequest
from proxy.upstream import Cancellation
from proxy.waiting import pause
from store.config import Config
from store.tenants import LiveKey, hash_key
from tests.proxy.wire import (
    Answer,
    Client,
    FakeHealth,
    FakeLearning,
    FakeTurn,
    RawUpstream,
    Seen,
    Stack,
    answering,
    plain,
    section,
)

CHAT = b"/v1/chat/completions"
BODY = b'{"model":"m","messages":[]}'
KEYS: Keys = {
    hash_key("tut-app"): LiveKey("key_app", "acme", "app", None),
    hash_key("tut-feedback"): LiveKey("key_feedback", "acme", "feedback", None),
    hash_key("tut-admin"): LiveKey("key_admin", "beta", "admin", None),
    hash_key("tut-reviewer"): LiveKey("key_reviewer", "acme", "reviewer", None),
    hash_key("tut-viewer"): LiveKey("key_viewer", "acme", "viewer", None),
}


def bearer(key: str) -> list[tuple[bytes, bytes]]:
    return [(b"authorization", b"Bearer " + key.encode())]


def error(answer: Answer) -> dict[str, Any]:
    """Return the error of a body in OpenAI's shape, and nothing else in it."""
    body = json.loads(answer.body)
    assert list(body) == ["error"]
    assert list(body["error"]) == ["message", "type", "param", "code"]
    assert dict(answer.headers)[b"content-type"] == b"application/json"
    fields: dict[str, Any] = body["error"]
    return fields


def test_a_request_begins_once_its_contexts_are_loaded(config: Config) -> None:
    learning = FakeLearning()
    begun: list[tuple[str, int]] = []

    async def load(_headers: object, tenant_id: str, cancellation: Cancellation) -> None:
        begun.append((tenant_id, len(learning.requests)))
        await pause(0.01, cancellation)

    learning.load = load
    with (
        RawUpstream(answering(plain(b"{}"))) as upstream,
        Stack(config, [section(upstream, config)], learning).running() as port,
        Client(port) as client,
    ):
        assert client.ask(b"POST", CHAT, BODY).status == 200
    assert begun == [("default", 0)]
    assert len(learning.requests) == 1


def test_what_learning_made_of_the_body_goes_upstream(config: Config) -> None:
    learning = FakeLearning(body=b'{"injected":true}')
    with (
        RawUpstream(answering(plain(b"{}"))) as upstream,
        Stack(config, [section(upstream, config)], learning).running() as port,
        Client(port) as client,
    ):
        upstream.script = answering(plain(b"{}"), seen=upstream.seen)
        client.ask(b"POST", CHAT, BODY, [(b"x-tutelage-user", b"u-1"), (b"user-agent", b"sdk")])
        seen: Seen = upstream.seen.get(timeout=10)
    (request, tenant_id) = learning.requests[0]
    assert (request.endpoint, request.body, tenant_id) == ("/v1/chat/completions", BODY, "default")
    assert (b"x-tutelage-user", b"u-1") in request.headers
    assert seen.body == b'{"injected":true}'
    assert seen.values(b"content-length") == [b"17"]
    assert seen.names == {b"host", b"user-agent", b"content-length"}


def test_an_offer_of_http2_costs_a_request_nothing(config: Config) -> None:
    # As java.net.http.HttpClient sends it, the body in a packet of its own.
    head = (
        b"POST /v1/chat/completions HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\nContent-Length: %d\r\n"
        b"Host: x\r\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA\r\nUpgrade: h2c\r\n\r\n"
    )
    offer = b'{"model":"m","messages":[{"role":"user","content":"\r\n\r\nUpgrade: h2c"}]}'
    with (
        RawUpstream(answering(plain(b"{}"))) as upstream,
        Stack(config, [section(upstream, config)]).running() as port,
        Client(port) as client,
    ):
        upstream.script = answering(plain(b"{}"), plain(b"{}"), seen=upstream.seen)
        for body in (BODY, offer):
            client.send(head % len(body))
            client.send(body)
            assert client.answer().status == 200
            seen: Seen = upstream.seen.get(timeout=10)
            assert (seen.body, seen.names) == (body, {b"host", b"content-length"})


def test_a_request_that_learning_finds_wrong_is_answered_as_it_says(config: Config) -> None:
    wrong = ApiError(400, "'messages' must be a list.", param="messages", code="invalid_type")
    with (
        RawUpstream(answering(plain(b"{}"))) as upstream,
        Stack(config, [section(upstream, config)], FakeLearning(error=wrong)).running() as port,
        Client(port) as client,
    ):
        answer = client.ask(b"POST", CHAT, b"{}")
    assert answer.status == 400
    assert error(answer) == {
        "message": "'messages' must be a list.",
        "type": "invalid_request_error",
        "param": "messages",
        "code": "invalid_type",
    }
    assert upstream.n_connections == 0


def test_an_answer_that_no_turn_stands_behind_has_an_id_of_its_own_too(config: Config) -> None:
    keys = KeyAuthenticator(dict)
    with (
        RawUpstream(answering(plain(b"{}"))) as upstream,
        Stack(config, [section(upstream, config)], authenticator=keys).running() as port,
        Client(port) as client,
    ):
        answers = [client.ask(b"POST", path, BODY) for path in (CHAT, b"/v1/messages")]
    ids = {answer.values(b"x-tutelage-response-id")[0] for answer in answers}
    assert [answer.status for answer in answers] == [401, 401]
    assert len(ids) == 2


def test_a_fault_of_ours_is_a_500_in_the_apis_shape(config: Config) -> None:
    with (
        RawUpstream(answering(plain(b"{}"))) as upstream,
        Stack(config, [section(upstream, config)], FakeLearning(error=RuntimeError("bug"))).running() as port,
        Client(port) as client,
    ):
        answer = client.ask(b"POST", CHAT, b"{}")
        again = client.ask(b"GET", b"/healthz")
    assert (answer.status, error(answer)["code"]) == (500, "internal_error")
    assert b"bug" not in answer.body
    assert again.status == 200


def test_a_fault_of_ours_after_the_turn_began_has_its_record(config: Config) -> None:
    class FaultyLearning(FakeLearning):
        def begin(self, request: IncomingRequest, tenant_id: str) -> FakeTurn:
            turn = super().begin(request, tenant_id)
            turn.model = 5  # type: ignore[assignment]
            return turn

    learning = FaultyLearning()
    with (
        RawUpstream(answering(plain(b"{}"))) as upstream,
        Stack(config, [section(upstream, config, models=("m",))], learning).running() as port,
        Client(port) as client,
    ):
        answer = client.ask(b"POST", CHAT, BODY)
    assert answer.status == 500
    assert learning.turns[0].outcome() == ("error", 500, "")


@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_chat_body_beyond_the_limit_is_a_413(config: Config, *, is_chunked: bool) -> None:
    learning = FakeLearning()
    body = b'{"a":"' + b"x" * 2_000_000 + b'"}'
    with (
        RawUpstream(answering(plain(b"{}"))) as upstream,
        Stack(config, [section(upstream, config)], learning, max_body_mb=1).running() as port,
        Client(port) as client,
    ):
        if_chunked = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
        if_whole = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body)
        client.send([if_whole + body, if_chunked + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)][is_chunked])
        answer = client.answer()
        again = client.ask(b"POST", CHAT, BODY)
    assert (answer.status, error(answer)["code"]) == (413, "request_too_large")
    assert again.status == 200
    assert len(learning.requests) == 1


def test_an_unknown_model_is_a_404(config: Config) -> None:
    learning = FakeLearning(model="other")
    with (
        RawUpstream(answering(plain(b"{}"))) as upstream,
        Stack(config, [section(upstream, config, models=("m",))], learning).running() as port,
        Client(port) as client,
    ):
        answer = client.ask(b"POST", CHAT, BODY)
    assert answer.status == 404
    assert (error(answer)["param"], error(answer)["code"]) == ("model", "model_not_found")
    assert learning.turns[0].outcome() == ("error", 404, "")


def test_what_is_not_http_is_a_400(config: Config) -> None:
    with (
        RawUpstream(answering(plain(b"{}"))) as upstream,
        Stack(config, [section(upstream, config)]).running() as port,
        Client(port) as client,
    ):
        client.send(b"nonsense\r\n\r\n")
        answer = client.answer()
    assert (answer.status, error(answer)["type"]) == (400, "invalid_request_error")


def test_more_connections_than_allowed_are_a_503(config: Config) -> None:
    with (
        RawUpstream(answering(plain(b"{}"))) as upstream,
        Stack(config, [section(upstream, config)], max_connections=1).running() as port,
        Client(port) as first,
        Client(port) as second,
    ):
        answers = [first.ask(b"GET", b"/healthz"), second.ask(b"GET", b"/healthz")]
    assert [answer.status for answer in answers] == [200, 503]
    assert error(answers[1])["code"] == "overloaded"


# Keys


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        pytest.param(b"POST", CHAT, bearer("tut-app"), 200, id="app asks"),
        pytest.param(b"POST", CHAT, bearer("tut-admin"), 200, id="admin asks"),
        pytest.param(b"POST", CHAT, [(b"x-api-key", b"tut-app")], 200, id="as Anthropic's clients"),
        pytest.param(b"POST", CHAT, bearer("tut-feedback"), 403, id="feedback must not ask"),
        pytest.param(b"POST", CHAT, bearer("tut-reviewer"), 403, id="reviewer must not ask"),
        pytest.param(b"POST", b"/v1/feedback", bearer("tut-viewer"), 403, id="viewer must not tell"),
        pytest.param(b"POST", CHAT, bearer("tut-wrong"), 401, id="wrong key"),
        pytest.param(b"POST", CHAT, [(b"authorization", b"Basic eDp5")], 401, id="no bearer"),
        pytest.param(b"POST", CHAT, [], 401, id="no key"),
        pytest.param(b"POST", b"/v1/feedback", bearer("tut-feedback"), 201, id="feedback tells"),
        pytest.param(b"POST", b"/v1/feedback", bearer("tut-app"), 201, id="app tells"),
        pytest.param(b"POST", b"/v1/feedback", [], 401, id="nobody tells"),
        pytest.param(b"GET", b"/v1/models", bearer("tut-app"), 200, id="app passes through"),
        pytest.param(b"GET", b"/v1/models", bearer("tut-feedback"), 403, id="feedback must not pass through"),
        pytest.param(b"GET", b"/v1/models", [], 401, id="nobody passes through"),
    ],
)
def test_a_key_opens_what_its_scope_says(
    config: Config, method: bytes, path: bytes, headers: list[tuple[bytes, bytes]], status: int
) -> None:
    with (
        RawUpstream(answering(plain(b"{}"))) as upstream,
        Stack(config, [section(upstream, config)], authenticator=KeyAuthenticator(lambda: KEYS)).running() as port,
        Client(port) as client,
    ):
        answer = client.ask(method, path, BODY, headers)
    assert answer.status == status


def test_a_wrong_key_is_told_as_openai_tells_it(config: Config) -> None:
    with (
        RawUpstream(answering(plain(b"{}"))) as upstream,
        Stack(config, [section(upstream, config)], authenticator=KeyAuthenticator(lambda: KEYS)).running() as port,
        Client(port) as client,
    ):
        answer = client.ask(b"POST", CHAT, BODY, bearer("tut-wrong"))
    assert error(answer)["code"] == "invalid_api_key"
    assert b"tut-wrong" not in answer.body


def test_keys_that_are_not_known_yet_are_a_503(config: Config) -> None:
    with (
        RawUpstream(answering(plain(b"{}"))) as upstream,
        Stack(config, [section(upstream, config)], authenticator=KeyAuthenticator(lambda: None)).running() as port,
        Client(port) as client,
    ):
        answer = client.ask(b"POST", CHAT, BODY, bearer("tut-app"))
    assert (answer.status, error(answer)["code"]) == (503, "keys_unavailable")


def test_the_tenant_comes_from_the_key(config: Config) -> None:
    learning = FakeLearning()
    with (
        RawUpstream(answering(plain(b"{}"))) as upstream,
        Stack(
            config, [section(upstream, config)], learning, authenticator=KeyAuthenticator(lambda: KEYS)
        ).running() as port,
        Client(port) as client,
    ):
        client.ask(b"POST", CHAT, BODY, bearer("tut-admin"))
        told = client.ask(b"POST", b"/v1/feedback", b"1", bearer("tut-app"))
    assert learning.requests[0][1] == "beta"
    assert told.body == b'{"tenant":"acme","body":1}'


@pytest.mark.parametrize(
    ("sent", "upstream_sees"),
    [
        pytest.param(bearer("tut-app"), bearer("sk-upstream"), id="bearer"),
        pytest.param([(b"x-api-key", b"tut-app")], [(b"x-api-key", b"sk-upstream")], id="x-api-key"),
        pytest.param([*bearer("tut-app"), (b"x-api-key", b"tut-app")], bearer("sk-upstream"), id="both"),
        pytest.param(
            [*bearer("tut-app"), (b"api-key", b"tut-app")], bearer("sk-upstream"), id="as Azure's clients too"
        ),
    ],
)
@pytest.mark.parametrize("path", [CHAT, b"/v1/embeddings"])
def test_in_keys_mode_our_key_stays_here_and_the_upstreams_key_stays_there(
    config: Config, path: bytes, sent: list[tuple[bytes, bytes]], upstream_sees: list[tuple[bytes, bytes]]
) -> None:
    with (
        RawUpstream(answering(plain(b"{}"))) as upstream,
        Stack(config, [section(upstream, config)], authenticator=KeyAuthenticator(lambda: KEYS)).running() as port,
        Client(port) as client,
    ):
        upstream.script = answering(plain(b"{}"), seen=upstream.seen)
        answer = client.ask(b"POST", path, BODY, sent)
        seen = upstream.seen.get(timeout=10)
    assert [header for header in seen.headers if header[0] in (b"authorization", b"x-api-key")] == upstream_sees
    assert b"tut-" not in repr(seen).encode()
    assert b"sk-upstream" not in repr(answer).encode()


@pytest.mark.parametrize(
    ("sent", "upstream_sees"),
    [
        pytest.param(bearer("sk-client"), bearer("sk-client"), id="the client's own"),
        pytest.param([], [], id="none"),
        pytest.param(bearer("tut-app"), [], id="a Tutelage key"),
    ],
)
def test_in_open_mode_the_clients_own_key_goes_upstream(
    config: Config, sent: list[tuple[bytes, bytes]], upstream_sees: list[tuple[bytes, bytes]]
) -> None:
    with (
        RawUpstream(answering(plain(b"{}"))) as upstream,
        Stack(config, [section(upstream, config)]).running() as port,
        Client(port) as client,
    ):
        upstream.script = answering(plain(b"{}"), seen=upstream.seen)
        client.ask(b"POST", CHAT, BODY, sent)
        seen = upstream.seen.get(timeout=10)
    assert [header for header in seen.headers if header[0] == b"authorization"] == upstream_sees


# Feedback and our own endpoints


def test_signals_are_given_and_taken_back(config: Config) -> None:
    with (
        RawUpstream(answering(plain(b"{}"))) as upstream,
        Stack(config, [section(upstream, config)]).running() as port,
        Client(port) as client,
    ):
        given = client.ask(b"POST", b"/v1/feedback", b'{"signal":1}')
        taken = client.ask(b"DELETE", b"/v1/feedback/fb_1")
        unknown = client.ask(b"DELETE", b"/v1/feedback/none")
        wrong = client.ask(b"GET", b"/v1/feedback/fb_1")
    assert (given.status, given.body) == (201, b'{"tenant":"default","body":{"signal":1}}')
    assert (taken.status, taken.body) == (200, b'{"tenant":"default","id":"fb_1"}')
    assert (unknown.status, error(unknown)["param"]) == (404, "id")
    assert (wrong.status, wrong.values(b"allow")) == (405, [b"DELETE"])
    assert upstream.n_connections == 0


def test_health_says_what_is_degraded(config: Config) -> None:
    health = FakeHealth()
    with (
        RawUpstream(answering(plain(b"{}"))) as upstream,
        Stack(config, [section(upstream, config)], health=health).running() as port,
        Client(port) as client,
    ):
        well = client.ask(b"GET", b"/healthz")
        ready = client.ask(b"GET", b"/readyz")
        health.broken, health.ready = {"database": "locked"}, False
        ill = client.ask(b"GET", b"/healthz")
        not_ready = client.ask(b"GET", b"/readyz")
    assert (well.status, json.loads(well.body)) == (200, {"status": "ok", "degraded": {}})
    assert (ill.status, json.loads(ill.body)) == (200, {"status": "degraded", "degraded": {"database": "locked"}})
    assert (ready.status, not_ready.status) == (200, 503)


def test_metrics_count_requests_and_failures(config: Config) -> None:
    with (
        RawUpstream(lambda peer: None) as upstream,
        Stack(config, [section(upstream, config)]).running() as port,
        Client(port) as client,
    ):
        client.ask(b"POST", CHAT, BODY)
        metrics = client.ask(b"GET", b"/metrics")
    assert b'tutelage_requests_total{endpoint="chat",status="502"} 1.0' in metrics.body
    assert b'tutelage_upstream_failures_total{kind="unreachable",upstream="local"} 1.0' in metrics.body
