"""What a client sees when upstreams fail and others stand in for them, over real connections."""

import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from proxy.authentication import KeyAuthenticator
from store.config import Config, UpstreamSection
from store.tenants import LiveKey, hash_key
from tests.proxy.wire import (
    STREAM_HEAD,
    Client,
    FakeLearning,
    Peer,
    RawUpstream,
    Stack,
    answering,
    chunked,
    plain,
    section,
)

CHAT = b"/v1/chat/completions"
EMBEDDINGS = b"/v1/embeddings"
BODY = b'{"model":"gpt-5","messages":[]}'
JSON = [(b"content-type", b"application/json"), (b"authorization", b"Bearer sk-client")]
BUSY = plain(b'{"error":{"message":"busy"}}', b"retry-after: 0", status=b"429 Too Many Requests")
BROKEN = plain(b"oops", b"x-from: main", status=b"503 Service Unavailable")
GOOD = plain(b'{"from":"spare"}')

Groups = Callable[[RawUpstream, RawUpstream], list[UpstreamSection]]


@pytest.fixture
def groups(config: Config) -> Groups:
    """Return the settings of an upstream that is tried twice and of the one that stands in for it."""

    def make(main: RawUpstream, spare: RawUpstream) -> list[UpstreamSection]:
        first = section(main, config, name="main", retries=1, retry_base_s=0.0, retry_max_s=1.0, fallbacks=("spare",))
        second = section(spare, config, name="spare", models=("nothing",), rename={"gpt-5": "my-deployment"})
        return [first, second]

    return make


def test_a_failure_is_tried_again_and_nobody_hears_of_it(config: Config, groups: Groups) -> None:
    learning = FakeLearning(body=BODY)
    with (
        RawUpstream(answering(BROKEN, plain(b'{"from":"main"}'))) as main,
        RawUpstream(answering(GOOD)) as spare,
        Stack(config, groups(main, spare), learning).running() as port,
        Client(port) as client,
    ):
        answer = client.ask(b"POST", CHAT, BODY, JSON)
    assert (answer.status, answer.body) == (200, b'{"from":"main"}')
    assert learning.turns[0].outcome() == ("ok", 200, "main")
    assert (main.n_connections, spare.n_connections) == (1, 0)


def test_another_upstream_gets_the_same_injected_bytes_under_its_own_name_for_the_model(
    config: Config, groups: Groups
) -> None:
    injected = b'{"model":"gpt-5","messages":[{"role":"system","content":"learned"}]}'
    learning = FakeLearning(body=injected)
    stack = Stack(config, [], learning)
    with RawUpstream(answering(BUSY)) as main, RawUpstream(answering(GOOD)) as spare:
        spare.script = answering(GOOD, seen=spare.seen)
        main.script = answering(BUSY, seen=main.seen)
        with replace(stack, upstreams=groups(main, spare)).running() as port, Client(port) as client:
            answer = client.ask(b"POST", CHAT, BODY, JSON)
        sent = [main.seen.get(timeout=10).body for _ in range(2)]
        stood_in = spare.seen.get(timeout=10)
    assert (answer.status, answer.body) == (200, b'{"from":"spare"}')
    assert sent == [injected, injected]
    assert stood_in.body == injected.replace(b"gpt-5", b"my-deployment")
    assert learning.turns[0].outcome() == ("ok", 200, "spare")
    assert (dict(stack.metrics.retries), dict(stack.metrics.fallbacks)) == ({"main": 1}, {"spare": 1})


def test_a_fallback_gets_its_own_key_and_never_the_clients(config: Config, groups: Groups) -> None:
    with RawUpstream(answering(BUSY)) as main, RawUpstream(answering(GOOD)) as spare:
        spare.script = answering(GOOD, seen=spare.seen)
        main.script = answering(BUSY, seen=main.seen)
        for credential in (b"sk-spare", b""):
            stack = Stack(config, groups(main, spare), credential=credential)
            with stack.running() as port, Client(port) as client:
                client.ask(b"POST", CHAT, BODY, JSON)
        seen = [spare.seen.get(timeout=10).values(b"authorization") for _ in range(2)]
        assert main.seen.get(timeout=10).values(b"authorization") == [b"Bearer sk-client"]
    assert seen == [[b"Bearer sk-spare"], []]


def test_when_all_fail_the_client_gets_the_last_real_answer_whole(config: Config, groups: Groups) -> None:
    learning = FakeLearning(body=BODY)
    with (
        RawUpstream(answering(BROKEN)) as main,
        RawUpstream(Peer.close) as spare,
        Stack(config, groups(main, spare), learning).running() as port,
        Client(port) as client,
    ):
        answer = client.ask(b"POST", CHAT, BODY, JSON)
    assert (answer.status, answer.body, dict(answer.headers)[b"x-from"]) == (503, b"oops", b"main")
    assert learning.turns[0].outcome() == ("upstream_error", 503, "main")


def test_when_nobody_replies_the_client_hears_of_the_last_one_asked(config: Config, groups: Groups) -> None:
    with (
        RawUpstream(Peer.close) as main,
        RawUpstream(Peer.close) as spare,
        Stack(config, groups(main, spare)).running() as port,
        Client(port) as client,
    ):
        answer = client.ask(b"POST", CHAT, BODY, JSON)
    assert answer.status == 502
    assert "'spare'" in json.loads(answer.body)["error"]["message"]


def test_a_stream_that_has_begun_is_never_sent_again(config: Config, groups: Groups) -> None:
    def cut(peer: Peer) -> None:
        peer.read_request()
        peer.send(STREAM_HEAD + chunked(b'data: {"n":1}\n\n'))
        peer.close()

    learning = FakeLearning(body=BODY)
    with RawUpstream(cut) as main, RawUpstream(answering(GOOD)) as spare:
        with Stack(config, groups(main, spare), learning).running() as port, Client(port) as client:
            client.request(b"POST", CHAT, BODY, JSON)
            assert b'data: {"n":1}' in client.read_until_closed()
        assert (main.n_connections, spare.n_connections) == (1, 0)
    assert learning.turns[0].outcome() == ("upstream_error", 200, "main")


def test_an_upstream_that_failed_too_often_rests(config: Config) -> None:
    with RawUpstream(answering(BROKEN)) as main:
        resting = section(main, config, name="main", breaker_failures=2, breaker_open_s=60.0)
        learning = FakeLearning(body=BODY)
        with Stack(config, [resting], learning).running() as port, Client(port) as client:
            statuses = [client.ask(b"POST", CHAT, BODY, JSON).status for _ in range(2)]
            answer = client.ask(b"POST", CHAT, BODY, JSON)
    assert statuses == [503, 503]
    assert json.loads(answer.body)["error"]["code"] == "upstream_resting"
    assert dict(answer.headers)[b"retry-after"] == b"60"
    assert learning.turns[2].outcome() == ("upstream_error", 503, "main")
    assert main.n_connections == 1


def test_a_client_that_leaves_between_two_tries_is_recorded_as_gone(config: Config) -> None:
    learning = FakeLearning(body=BODY)
    with RawUpstream(answering(BROKEN)) as main:
        main.script = answering(plain(b"", b"retry-after: 60", status=b"503 Busy"), seen=main.seen)
        waiting = section(main, config, name="main", retries=1, retry_max_s=100.0)
        with Stack(config, [waiting], learning).running() as port:
            with Client(port) as client:
                client.request(b"POST", CHAT, BODY, JSON)
                main.seen.get(timeout=10)
            assert learning.turns[0].outcome() == ("cancelled", 0, "main")


@pytest.mark.parametrize("path", [EMBEDDINGS, b"/v1/moderations"])
def test_a_passed_through_request_that_leaves_nothing_behind_goes_elsewhere_too(
    config: Config, groups: Groups, path: bytes
) -> None:
    with RawUpstream(answering(BUSY)) as main, RawUpstream(answering(GOOD)) as spare:
        spare.script = answering(GOOD, seen=spare.seen)
        main_section, spare_section = groups(main, spare)
        upstreams = [replace(main_section, models=("gpt-*",)), spare_section]
        with Stack(config, upstreams).running() as port, Client(port) as client:
            answer = client.ask(b"POST", path, b'{"model":"gpt-5","input":"x"}', JSON)
        assert spare.seen.get(timeout=10).body == b'{"model":"my-deployment","input":"x"}'
    assert answer.body == b'{"from":"spare"}'


def test_what_makes_something_upstream_is_sent_once(config: Config, groups: Groups) -> None:
    with (
        RawUpstream(answering(BROKEN)) as main,
        RawUpstream(answering(GOOD)) as spare,
        Stack(config, groups(main, spare)).running() as port,
        Client(port) as client,
    ):
        answer = client.ask(b"POST", b"/v1/fine_tuning/jobs", b'{"model":"gpt-5"}', JSON)
    assert (answer.status, answer.body, main.n_connections, spare.n_connections) == (503, b"oops", 1, 0)


def stall(peer: Peer) -> None:
    peer.read_request()
    peer.wait_closed()


def drip(peer: Peer) -> None:
    peer.read_request()
    peer.send(STREAM_HEAD + chunked(b'data: {"n":1}\n\n'))
    peer.wait_closed()


def test_a_reply_that_does_not_begin_within_the_total_timeout_is_a_504(config: Config) -> None:
    with RawUpstream(stall) as upstream:
        learning = FakeLearning(body=BODY)
        slow = section(upstream, config, total_timeout_s=0.05)
        with Stack(config, [slow], learning).running() as port, Client(port) as client:
            answer = client.ask(b"POST", CHAT, BODY, JSON)
    assert (answer.status, json.loads(answer.body)["error"]["code"]) == (504, "upstream_timeout")
    assert learning.turns[0].outcome()[:2] == ("upstream_error", 504)


def test_a_reply_that_does_not_end_within_the_total_timeout_is_cut(config: Config) -> None:
    with RawUpstream(drip) as upstream:
        learning = FakeLearning(body=BODY)
        slow = section(upstream, config, total_timeout_s=0.05)
        with Stack(config, [slow], learning).running() as port, Client(port) as client:
            client.request(b"POST", CHAT, BODY, JSON)
            assert b'"code":"upstream_timeout"' in client.read_until_closed()
    assert learning.turns[0].outcome()[:2] == ("upstream_error", 200)


def test_a_key_of_keys_mode_never_reaches_any_upstream(config: Config, groups: Groups) -> None:
    keys = {hash_key("tut-app"): LiveKey("key_1", "acme", "app", None)}
    with RawUpstream(answering(BUSY)) as main, RawUpstream(answering(GOOD)) as spare:
        main.script = answering(BUSY, seen=main.seen)
        spare.script = answering(GOOD, seen=spare.seen)
        stack = Stack(config, groups(main, spare), authenticator=KeyAuthenticator(lambda: keys))
        with stack.running() as port, Client(port) as client:
            client.ask(b"POST", CHAT, BODY, [(b"authorization", b"Bearer tut-app")])
        seen = [upstream.seen.get(timeout=10).values(b"authorization") for upstream in (main, spare)]
    assert seen == [[b"Bearer sk-upstream"]] * 2
