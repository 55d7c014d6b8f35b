"""``tutelage doctor`` finds what is wrong with an installation, says what to do, and is silent about what is well."""

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.flow.conftest import NewProduct
from tests.flow.product import Product, free_port
from tests.upstream import Reply, Upstream, chat_reply


def findings(product: Product) -> tuple[int, dict[str, list[tuple[str, str]]]]:
    """Return the exit code and, by name, (level, what was said and what to do)."""
    done = product.command("doctor", "--json", check=False)
    found: dict[str, list[tuple[str, str]]] = {}
    for one in json.loads(done.stdout):
        found.setdefault(one["name"], []).append((one["level"], f"{one['said']} | {one['todo']}"))
    return done.returncode, found


def levels(found: dict[str, list[tuple[str, str]]], name: str) -> list[str]:
    return [level for level, _ in found.get(name, [])]


@contextmanager
def answering(status: int, date: str = "") -> Iterator[str]:
    """A server that answers every GET with *status*, and with a clock of its own."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response_only(status)
            if date:
                self.send_header("Date", date)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as the library calls it
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_an_installation_at_work_has_nothing_that_fails(product: Product, upstream: Upstream) -> None:
    models = Reply((b'{"object": "list", "data": []}',))
    upstream.script = lambda request: models if request.method == "GET" else chat_reply(request)
    product.start("up")
    product.response_row(product.chat())
    code, found = findings(product)
    assert code == 0
    for name in ("settings", "database", "records", "embedding", "tokens", "proxy", "learner", "keys"):
        assert levels(found, name) == ["ok"], (name, found[name])
    assert levels(found, "upstream local") == ["ok"]
    assert "tutelage learn" in found["tenant default"][0][1]


def test_what_is_not_there_is_named_with_what_to_do(new_product: NewProduct) -> None:
    product = new_product(
        settings={"tenancy": {"mode": "keys"}, "learner": {"host": "127.0.0.1"}}, api_key_env="NO_SUCH_KEY"
    )
    product.upstream_url = f"http://127.0.0.1:{free_port()}/v1"
    product.write_config()
    product.command("tenants", "list")
    code, found = findings(product)
    assert code == 1
    assert levels(found, "upstream local") == ["fail", "fail"]
    assert "NO_SUCH_KEY is not set" in found["upstream local"][0][1]
    assert "cannot be reached" in found["upstream local"][1][1]
    assert levels(found, "keys") == ["fail", "fail"]
    assert "tutelage keys create --scope app" in found["keys"][0][1]
    assert levels(found, "proxy") == levels(found, "learner") == ["warn"]


def test_a_bad_setting_ends_the_round(product: Product) -> None:
    product.config_path.write_text("[proxy]\nprot = 1\n")
    code, found = findings(product)
    assert (code, list(found)) == (1, ["settings"])
    assert "prot" in found["settings"][0][1]


def test_a_refused_key_and_a_wrong_clock_are_told(new_product: NewProduct) -> None:
    product = new_product(
        settings={"tenancy": {"mode": "keys"}}, api_key_env="UPSTREAM_KEY", environment={"UPSTREAM_KEY": "sk-wrong"}
    )
    with answering(401, "Wed, 21 Oct 2015 07:28:00 GMT") as url:
        product.upstream_url = url
        product.write_config()
        _, found = findings(product)
    assert "refuses the key in UPSTREAM_KEY" in found["upstream local"][0][1]
    assert levels(found, "clock") == ["warn"]
    assert "sk-wrong" not in str(found)


def test_a_stranger_on_our_port_a_damaged_database_and_others_who_read_it_are_told(
    product: Product, upstream: Upstream
) -> None:
    product.command("tenants", "list")
    product.database_path.chmod(0o644)
    _, readable = findings(product)
    product.database_path.write_bytes(b"SQLite format 3\x00" + b"x" * 5000)
    with answering(200) as url:
        product.proxy_port = int(url.split(":")[2].split("/")[0])
        product.write_config()
        code, found = findings(product)
    assert "chmod 600" in readable["database"][1][1]
    assert code == 1
    assert levels(found, "proxy") == ["fail"]
    assert "fail" in levels(found, "database")
    assert upstream.base_url in str(found)


def test_a_model_without_a_price_is_told_for_its_cap_cannot_stop_it(new_product: NewProduct) -> None:
    product = new_product()
    product.config_path.write_text(
        product.config_path.read_text().replace('extract = ""', 'extract = "openai/my-own-model"')
    )
    _, found = findings(product)
    assert "warn" in levels(found, "models")
    assert "my-own-model has no known price" in str(found["models"])
