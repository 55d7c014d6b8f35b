"""Keys mode: who may what, no key leaks in either direction, and one tenant never sees another's."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.flow.conftest import NewProduct
from tests.flow.product import Product, eventually
from tests.upstream import Reply, Upstream, chat_reply, json_reply

UPSTREAM_KEY = "sk-upstream-secret-abcdef"
QUESTIONS = ["How do I reset my password?", "I forgot my password.", "Where do I change my password?"]


@dataclass(frozen=True)
class Keys:
    acme: str
    acme_admin: str
    globex: str
    globex_admin: str


def create_key(product: Product, tenant: str, scope: str) -> str:
    printed = product.command("keys", "create", "--tenant", tenant, "--name", f"{tenant}-{scope}", "--scope", scope)
    (key,) = re.findall(r"tut-[\w-]{20,}", printed.stdout)
    return str(key)


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory, shared_upstream: Upstream) -> Iterator[tuple[Product, Keys]]:
    """A running proxy and learner in keys mode with two tenants."""
    with Product(
        tmp_path_factory.mktemp("keys"),
        shared_upstream.base_url,
        settings={"tenancy": {"mode": "keys"}},
        api_key_env="TEST_UPSTREAM_KEY",
        environment={"TEST_UPSTREAM_KEY": UPSTREAM_KEY},
    ) as product:
        keys = Keys(
            *(create_key(product, tenant, scope) for tenant in ("acme", "globex") for scope in ("app", "admin"))
        )
        product.start("up")
        yield product, keys


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def admin(product: Product, key: str, method: str, path: str, **body: Any) -> httpx.Response:
    with httpx.Client(timeout=20, headers={"x-api-key": key}) as client:
        return client.request(method, product.learner_url + path, json=body or None)


@pytest.mark.parametrize(
    "headers",
    [{"authorization": ""}, bearer("tut-wrong"), bearer("sk-something"), {"authorization": "Basic dTpw"}, bearer("é")],
    ids=["none", "wrong", "a provider's", "basic", "not ASCII"],
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/embeddings", "/v1/feedback"])
def test_without_a_valid_key_nothing_passes(
    headers: dict[str, str], path: str, installation: tuple[Product, Keys], shared_upstream: Upstream
) -> None:
    product, _ = installation
    n_seen = len(shared_upstream.requests)
    encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
    answer = httpx.post(
        product.proxy_url + path,
        json={"model": "m", "messages": [{"role": "user", "content": "Hi"}]},
        headers=encoded,
        timeout=20,
    )
    assert answer.status_code == 401
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] == "invalid_api_key"
    assert "tut-wrong" not in answer.text
    assert len(shared_upstream.requests) == n_seen
    assert product.rows("SELECT id FROM responses WHERE outcome = 'ok' AND tenant_id = 'default'") == []


def test_keys_leak_in_neither_direction(installation: tuple[Product, Keys], shared_upstream: Upstream) -> None:
    product, keys = installation
    for path in ("/v1/chat/completions", "/v1/embeddings"):
        body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
        headers = {**bearer(keys.acme), "x-api-key": keys.acme, "cookie": "session=1"}
        answer = httpx.post(product.proxy_url + path, json=body, headers=headers, timeout=20)
        seen = shared_upstream.last
        assert answer.status_code == 200
        assert seen.header("authorization") == f"Bearer {UPSTREAM_KEY}"
        assert keys.acme not in str(seen)
        assert UPSTREAM_KEY not in answer.text + str(answer.headers)


def test_a_wrong_upstream_key_is_not_shown_to_the_client(
    installation: tuple[Product, Keys], shared_upstream: Upstream
) -> None:
    product, keys = installation

    def refuse(_: object) -> Reply:
        return json_reply({"error": {"message": "bad key", "type": "x", "param": None, "code": "invalid_api_key"}}, 401)

    shared_upstream.script = refuse
    answer = product.chat(headers=bearer(keys.acme))
    shared_upstream.script = chat_reply
    assert answer.status_code in (401, 502)
    assert UPSTREAM_KEY not in answer.text + str(answer.headers)
    assert product.response_row(answer)["outcome"] in ("upstream_error", "error")


def test_a_key_is_stored_as_a_hash_only(installation: tuple[Product, Keys]) -> None:
    product, keys = installation
    content = b"".join(path.read_bytes() for path in product.folder.rglob("*") if path.is_file())
    assert keys.acme.encode() not in content
    assert UPSTREAM_KEY.encode() not in content


def test_a_signal_on_another_tenants_response_is_a_404(installation: tuple[Product, Keys]) -> None:
    product, keys = installation
    answer = product.chat(headers=bearer(keys.acme))
    record = product.response_row(answer)
    assert record["tenant_id"] == "acme"
    for name in (record["id"], record["upstream_id"]):
        foreign = product.feedback({"response_id": name, "signal": "thumbs_down"}, key=keys.globex)
        assert foreign.status_code == 404
        assert foreign.json()["error"]["message"] == foreign.json()["error"]["message"].replace("acme", "")
    own = product.feedback({"response_id": record["id"], "signal": "thumbs_up"}, key=keys.acme)
    assert own.status_code == 201
    signal_url = f"{product.proxy_url}/v1/feedback/{own.json()['id']}"
    assert httpx.delete(signal_url, headers=bearer(keys.globex), timeout=20).status_code == 404
    assert httpx.delete(signal_url, headers=bearer(keys.acme), timeout=20).status_code in (200, 204)


def test_an_app_key_opens_no_admin_page_and_an_admin_key_sees_its_tenant_only(
    installation: tuple[Product, Keys], shared_upstream: Upstream
) -> None:
    product, keys = installation
    paths = ["/api/patterns", "/api/contexts", "/api/runs", "/api/alerts", "/api/stats", "/api/training/datasets"]
    for path in paths:
        assert httpx.get(product.learner_url + path, timeout=20).status_code == 401
        assert admin(product, keys.acme, "GET", path).status_code in (401, 403)
        assert admin(product, keys.acme_admin, "GET", path).status_code == 200

    rule, answer = "Canary rule of acme.", "Canary answer of acme."
    body = {"type": "domain_knowledge", "rule": rule, "conditions": {}, "state": "pinned"}
    pattern = admin(product, keys.acme_admin, "POST", "/api/patterns", **body).json()
    context = admin(
        product, keys.acme_admin, "POST", "/api/contexts", questions=QUESTIONS, answer=answer, tags=[]
    ).json()
    assert admin(product, keys.acme_admin, "POST", f"/api/contexts/{context['id']}/approve").status_code == 200
    record = product.response_row(product.chat(headers=bearer(keys.acme)))

    for path in paths:
        assert "anary" not in admin(product, keys.globex_admin, "GET", path).text
    for path in (
        f"/api/patterns/{pattern['id']}",
        f"/api/contexts/{context['id']}",
        f"/api/conversations/{record['conversation_id']}",
    ):
        assert admin(product, keys.acme_admin, "GET", path).status_code == 200
        assert admin(product, keys.globex_admin, "GET", path).status_code == 404
    assert admin(product, keys.globex_admin, "POST", f"/api/contexts/{context['id']}/reject").status_code == 404
    assert admin(product, keys.globex_admin, "PATCH", f"/api/patterns/{pattern['id']}", rule="x").status_code == 404

    def texts(key: str) -> str:
        for number in range(6):
            product.chat(QUESTIONS[0], headers={**bearer(key), "x-tutelage-conversation": f"canary-{number}"})
        return "".join(seen.body.decode() for seen in shared_upstream.requests[-6:])

    assert eventually(lambda: [text for text in [texts(keys.acme)] if rule in text and answer in text], 3)
    assert "anary" not in texts(keys.globex)


def test_the_same_conversation_and_signal_names_do_not_meet_across_tenants(installation: tuple[Product, Keys]) -> None:
    product, keys = installation
    for key in (keys.acme, keys.globex):
        answer = product.chat(headers={**bearer(key), "x-tutelage-conversation": "shared-name"})
        name = product.response_row(answer)["id"]
        vote = {"response_id": name, "signal": "thumbs_up", "user": "u", "id": "shared-signal"}
        assert product.feedback(vote, key=key).json()["response_id"] == name
    rows = product.rows("SELECT tenant_id FROM response_feedback WHERE id = 'shared-signal' ORDER BY tenant_id")
    assert [row["tenant_id"] for row in rows] == ["acme", "globex"]


def test_a_revoked_key_is_refused_within_a_second(installation: tuple[Product, Keys]) -> None:
    product, _ = installation
    key = create_key(product, "acme", "app")
    assert eventually(lambda: product.chat(headers=bearer(key)).status_code == 200, 2)
    (row,) = [row for row in product.command_json("keys", "list") if key.startswith(row["prefix"])]
    product.command("keys", "revoke", row["id"])
    assert eventually(lambda: product.chat(headers=bearer(key)).status_code == 401, 2)


def add_entry(product: Product, tenant: str, answer: str) -> None:
    phrasings = [part for question in QUESTIONS for part in ("--question", question)]
    product.command("contexts", "add", "--tenant", tenant, *phrasings, "--answer", answer, "--approve")


def test_the_first_request_of_each_tenant_has_its_knowledge_after_a_restart_too(
    new_product: NewProduct, upstream: Upstream
) -> None:
    product = new_product(
        settings={"tenancy": {"mode": "keys"}},
        api_key_env="TEST_UPSTREAM_KEY",
        environment={"TEST_UPSTREAM_KEY": UPSTREAM_KEY},
    )
    keys = {tenant: create_key(product, tenant, "app") for tenant in ("acme", "globex")}
    for tenant in keys:
        add_entry(product, tenant, f"The portal of {tenant}.")
    for _ in range(2):
        proxy = product.start("proxy")
        for tenant, key in keys.items():
            assert product.chat(QUESTIONS[0], headers=bearer(key)).status_code == 200
            assert f"The portal of {tenant}." in upstream.last.body.decode()
        assert proxy.stop() == 0
    injected = product.rows(
        """
        SELECT r.tenant_id, count(*) AS n FROM responses AS r JOIN injections AS i ON i.response_id = r.id
        WHERE i.kind = 'context' GROUP BY r.tenant_id ORDER BY r.tenant_id
        """
    )
    assert [(row["tenant_id"], row["n"]) for row in injected] == [("acme", 2), ("globex", 2)]


def test_open_mode_is_refused_on_a_host_that_others_reach(product: Product) -> None:
    product.config_path.write_text(product.config_path.read_text().replace("[proxy]", '[proxy]\nhost = "0.0.0.0"'))
    done = product.command("proxy", check=False)
    assert done.returncode != 0
    assert "loopback" in done.stderr
