"""Checks of what is reached over a network: our own ports, the upstreams, servers of models, and clocks."""

import http.client
import json
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlsplit

from store.config import LOCAL_MODEL, Config, UpstreamSection
from store.prices import PriceBook
from tutelage.doctor.finding import Finding, fail, ok, warn

TIMEOUT_S: Final = 10.0
MAX_BODY_BYTES: Final = 1_000_000
MAX_SKEW_S: Final = 60.0  # between two clocks; signals within 30 s and days of the learner are told by ours
DIRECT: Final = "openai"


@dataclass(frozen=True, slots=True)
class Answered:
    status: int
    headers: Mapping[str, str]
    body: bytes


def get(url: str, headers: Mapping[str, str]) -> Answered:
    """Return what a server answers to one GET; no redirect is followed.

    Raises:
        OSError: it cannot be reached, or not in time.
        http.client.HTTPException: it does not speak HTTP.
    """
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        connection = http.client.HTTPSConnection(host, port, timeout=TIMEOUT_S, context=ssl.create_default_context())
    else:
        connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", parts.path or "/", headers=dict(headers))
        reply = connection.getresponse()
        return Answered(reply.status, {k.lower(): v for k, v in reply.getheaders()}, reply.read(MAX_BODY_BYTES))
    finally:
        connection.close()


def check_ports(config: Config) -> Iterator[Finding]:
    """Yield whether our own processes answer, and what they say does not work."""
    for name, section in (("proxy", config.proxy), ("learner", config.learner)):
        host = "127.0.0.1" if section.host in ("0.0.0.0", "") else section.host  # noqa: S104 - any address: ours too
        where = f"{host}:{section.port}"
        try:
            answered = get(f"http://{where}/healthz", {})
            health = json.loads(answered.body)
            status, degraded = health["status"], health.get("degraded", {})
        except OSError:
            yield warn(name, f"nothing answers on {where}", f"tutelage {name}, or tutelage up for both")
            continue
        except (http.client.HTTPException, ValueError, KeyError, TypeError):
            yield fail(name, f"something else answers on {where}", f"stop it, or change [{name}] port")
            continue
        if status == "ok":
            yield ok(name, f"answers on {where}")
        for part, problem in dict(degraded).items():
            yield fail(name, f"{part}: {problem}", "it serves all the same; see its log")


def check_upstreams(config: Config, environment: Mapping[str, str], now_s: float) -> Iterator[Finding]:
    """Yield whether each upstream answers, takes our key, and agrees on the time."""
    for section in config.upstream:
        name = f"upstream {section.name}"
        key = environment.get(section.api_key_env, "") if section.api_key_env else ""
        if section.api_key_env and not key and config.tenancy.mode == "keys":
            yield fail(name, f"{section.api_key_env} is not set", "export it where the proxy starts")
        if section.provider != DIRECT:
            yield ok(name, f"{section.provider}, through litellm; not asked, for each request to it costs")
            continue
        yield from _check_direct(section, name, key if config.tenancy.mode == "keys" else "", now_s)


def _check_direct(section: UpstreamSection, name: str, key: str, now_s: float) -> Iterator[Finding]:
    url = f"{section.base_url.rstrip('/')}/models"
    headers = {"authorization": f"Bearer {key}"} if key else {}
    try:
        answered = get(url, headers)
    except (OSError, http.client.HTTPException) as exc:
        yield fail(name, f"{url} cannot be reached: {exc or type(exc).__name__}", "check base_url and the network")
        return
    if answered.status in (401, 403):
        if key:
            yield fail(name, f"it refuses the key in {section.api_key_env} ({answered.status})", "check the key")
        else:
            yield ok(name, f"{section.base_url} answers, and wants a key (clients bring theirs)")
    elif answered.status >= 500 and answered.status != HTTPStatus.NOT_IMPLEMENTED:  # it has no list of models
        yield warn(name, f"{url} answers {answered.status}", "ask again later; it may be down")
    else:
        yield ok(name, f"{section.base_url} answers ({answered.status})")
    yield from _check_clock(name, answered.headers.get("date", ""), now_s)


def _check_clock(name: str, date: str, now_s: float) -> Iterator[Finding]:
    try:
        skew_s = now_s - parsedate_to_datetime(date).timestamp()
    except (TypeError, ValueError):  # it did not say, or not in a form that can be read
        return
    if abs(skew_s) > MAX_SKEW_S:
        yield warn("clock", f"this machine's differs from {name}'s by {skew_s:+.0f} s", "let NTP set it")
    else:
        yield ok("clock", f"agrees with {name}'s within {MAX_SKEW_S:.0f} s")


def check_model_servers(config: Config, environment: Mapping[str, str]) -> Iterator[Finding]:
    """Yield whether the learner's models have their key and a price; none is asked, for that costs."""
    models = config.learner.models
    named: dict[str, Any] = {part: getattr(models, part) for part in ("prescreen", "extract", "wording")}
    chosen = sorted({model for model in named.values() if model})
    if not chosen:
        yield ok("models", "none is configured: built-in rules and templates do their work")
    if chosen and models.api_key_env and not environment.get(models.api_key_env):
        yield fail("models", f"{models.api_key_env} is not set", "export it where the learner starts")
    prices = PriceBook(config.prices)
    prices.load()
    for model in chosen:
        provider, _, bare = model.rpartition("/")
        if prices.find(bare, provider) is None and prices.find(model, provider) is None:
            yield warn(
                "models",
                f"{model} has no known price: max_cost_usd_per_run cannot stop it, only max_tokens_per_run",
                f'add "{model}" = [input, output] to [prices]',
            )
        else:
            yield ok("models", f"{model} has a price (not asked)")
    server = config.embedding
    if server.model != LOCAL_MODEL and server.api_key_env and not environment.get(server.api_key_env):
        yield warn("embedding", f"{server.api_key_env} is not set", "export it; until then the local embedding serves")
