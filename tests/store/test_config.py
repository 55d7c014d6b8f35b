"""Settings: single keys are overridden, and a mistake is named with the nearest right one."""

import re
import tomllib
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import pytest

from store.config import Config, database_path, default_config_path, load_config, segment_directory
from store.errors import ConfigError

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write_file(text: str) -> Path:
        path = tmp_path / "my.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write_file


def test_the_shipped_file_works_without_edits() -> None:
    config = load_config()

    assert (config.proxy.port, config.learner.port) == (8484, 8485)
    assert config.patterns.max_tokens == 500
    assert dict(config.feedback.weights) == {
        "thumbs_up": 1.0,
        "thumbs_down": -1.0,
        "copy": 0.3,
        "follow_up": -0.2,
        "dwell_time": -0.1,
        "insight_ack": 0.2,
        "regenerate": -0.3,
        "correction": -0.5,
    }


def test_a_copy_of_the_shipped_file_changes_nothing(write: Write) -> None:
    assert load_config(write(default_config_path().read_text(encoding="utf-8"))) == load_config()


def test_every_shipped_setting_has_a_comment_or_tells_its_unit() -> None:
    lines = default_config_path().read_text(encoding="utf-8").splitlines()
    numbers = [line for line in lines if re.match(r"[a-z_]+ = -?[0-9.]+\s*$", line)]

    # Without a comment: what the name or the section's comment says.
    assert {line.split(" = ")[0] for line in numbers} <= {
        *load_config().feedback.weights,
        "port",
        "max_items",
    }


def test_a_users_file_overrides_single_keys(write: Write) -> None:
    config = load_config(write("[proxy]\nport = 9000\n[feedback.weights]\ncopy = 0.5\n"))

    assert config.proxy.port == 9000
    assert config.proxy.workers == load_config().proxy.workers
    assert config.feedback.weights["copy"] == 0.5
    assert config.feedback.weights["thumbs_up"] == 1.0


def test_overrides_win_over_the_users_file(write: Write) -> None:
    config = load_config(write("[proxy]\nport = 9000\nworkers = 3\n"), {"proxy": {"port": 9001}})

    assert (config.proxy.port, config.proxy.workers) == (9001, 3)


def test_the_file_of_the_contract_is_enough(write: Write) -> None:
    config = load_config(
        write(
            """
            [proxy]
            port = 8484
            [learner]
            port = 8485
            [store]
            url = "sqlite:////var/lib/tutelage/tutelage.db"
            [[upstream]]
            name = "local"
            base_url = "http://127.0.0.1:9000/v1"
            models = ["*"]
            [learner.models]
            prescreen = ""
            extract = ""
            wording = ""
            """
        )
    )

    assert database_path(config.store) == Path("/var/lib/tutelage/tutelage.db")
    assert segment_directory(config) == Path("/var/lib/tutelage/tutelage.db.segments")
    assert [(upstream.name, upstream.provider) for upstream in config.upstream] == [("local", "openai")]


def test_a_list_of_upstreams_replaces_the_shipped_one_and_takes_its_missing_keys(write: Write) -> None:
    config = load_config(
        write(
            """
            [[upstream]]
            name = "small"
            base_url = "http://127.0.0.1:1/v1"
            models = ["small-*"]
            connect_timeout_s = 2
            [[upstream]]
            name = "rest"
            base_url = "https://example.org/v1"
            """
        )
    )

    small, rest = config.upstream
    assert (small.name, small.models, small.connect_timeout_s) == ("small", ("small-*",), 2.0)
    assert (rest.name, rest.models, rest.connect_timeout_s) == ("rest", ("*",), 10.0)
    assert rest.api_key_env == ""  # the shipped upstream's key is never sent to another server


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[proxy]\nprot = 1\n", "unknown setting 'proxy.prot'; the nearest known one is 'proxy.port'"),
        ("[porxy]\nport = 1\n", "unknown setting 'porxy'; the nearest known one is 'proxy'"),
        (
            "[learner.models]\nextrakt = ''\n",
            "unknown setting 'learner.models.extrakt'; the nearest known one is 'learner.models.extract'",
        ),
        (
            "[feedback.weights]\nthumb_up = 1\n",
            "unknown setting 'feedback.weights.thumb_up'; the nearest known one is 'feedback.weights.thumbs_up'",
        ),
        (
            "[[upstream]]\nname = 'a'\nbase_url = 'http://x'\nmodel = ['*']\n",
            "unknown setting 'upstream.model'; the nearest known one is 'upstream.models'",
        ),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest_known_one(write: Write, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(write(text))

    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"proxy": {"port": "8484"}}, "proxy.port must be int, not '8484'"),
        ({"proxy": {"port": True}}, "proxy.port must be int, not True"),
        ({"proxy": {"port": 8484.0}}, "proxy.port must be int, not 8484.0"),
        ({"proxy": {"port": 70000}}, "port must be between 0 and 65535, not 70000"),
        ({"proxy": 3}, "proxy must be a table, not 3"),
        ({"patterns": {"enabled": 1}}, "patterns.enabled must be bool, not 1"),
        ({"patterns": {"holdout": 1.5}}, "patterns.holdout must be between 0 and 1, not 1.5"),
        ({"patterns": {"holdout": float("nan")}}, "patterns.holdout must be a finite number, not nan"),
        ({"proxy": {"drain_timeout_s": float("inf")}}, "proxy.drain_timeout_s must be a finite number, not inf"),
        ({"proxy": {"drain_timeout_s": -1}}, "proxy.drain_timeout_s must not be negative, not -1.0"),
        ({"proxy": {"workers": 0}}, "proxy.workers must be more than 0"),
        ({"learner": {"run_interval_h": 0}}, "learner.run_interval_h must be more than 0"),
        ({"learner": {"models": {"timeout_s": 0}}}, "learner.models.timeout_s must be more than 0"),
        (
            {"upstream": [{"name": "a", "base_url": "http://x", "connect_timeout_s": 0}]},
            "upstream[0].connect_timeout_s must be more than 0",
        ),
        ({"feedback": {"weights": {"copy": float("nan")}}}, "feedback.weights.copy must be a finite number, not nan"),
        ({"feedback": {"weights": {"copy": -11}}}, "feedback.weights.copy must be between -10 and 10, not -11.0"),
        ({"feedback": {"weights": {"copy": "much"}}}, "feedback.weights.copy must be float, not 'much'"),
        ({"tenancy": {"mode": "closed"}}, "tenancy.mode must be one of open, keys, not 'closed'"),
        ({"upstream": []}, "at least one [[upstream]] is needed"),
        ({"upstream": {"name": "a"}}, None),
        ({"upstream": ["a"]}, "upstream[0] must be a table, not 'a'"),
        (
            {"upstream": [{"name": "a", "base_url": "example.org"}]},
            "upstream.base_url must be an http(s) URL, not 'example.org'",
        ),
        (
            {"upstream": [{"name": "a", "base_url": "http://x"}, {"name": "a", "base_url": "http://y"}]},
            "upstream.name must be unique, not ['a', 'a']",
        ),
        (
            {"upstream": [{"name": "a", "base_url": "http://x", "models": "*"}]},
            "upstream[0].models must be a list, not '*'",
        ),
        (
            {"upstream": [{"name": "a", "base_url": "http://x", "fallbacks": ["a"]}]},
            "upstream 'a' cannot be its own fallback; retries are for that",
        ),
        (
            {
                "upstream": [
                    {"name": "main", "base_url": "http://x", "fallbacks": ["spere"]},
                    {"name": "spare", "base_url": "http://y"},
                ]
            },
            "unknown upstream 'spere' in the fallbacks of 'main'; the nearest known one is 'spare'",
        ),
        (
            {"upstream": [{"name": "a", "base_url": "http://x", "retries": -1}]},
            "upstream[0].retries must not be negative, not -1",
        ),
        (
            {"upstream": [{"name": "a", "base_url": "http://x", "breaker_open_s": 0}]},
            "upstream[0].breaker_open_s must be more than 0",
        ),
        (
            {"upstream": [{"name": "a", "base_url": "http://x", "rename": {"gpt-5": 5}}]},
            "upstream[0].rename.gpt-5 must be str, not 5",
        ),
        ({"limits": {"tokens_per_minute": -1}}, "limits.tokens_per_minute must not be negative, not -1"),
        ({"limits": {"requests_per_minute": 0.5}}, "limits.requests_per_minute must be int, not 0.5"),
        ({"prices": {"m": 1.0}}, "prices.m must be a list, not 1.0"),
        ({"prices": {"m": [1.0, -2.0]}}, "prices.m[1] must not be negative, not -2.0"),
        ({"prices": {"m": [1.0]}}, "prices.m must be [input, output] or [input, output, cached input], not [1.0]"),
    ],
)
def test_a_wrong_value_is_named(overrides: dict[str, Any], message: str | None) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(None, overrides)

    assert str(caught.value) == (message or str(caught.value))


def test_by_default_nothing_is_sent_twice_elsewhere_or_turned_away() -> None:
    config = load_config()

    (upstream,) = config.upstream
    assert (upstream.retries, upstream.fallbacks, upstream.breaker_failures) == (0, (), 0)
    assert (upstream.total_timeout_s, dict(upstream.rename)) == (0.0, {})
    limits = config.limits
    assert (limits.requests_per_minute, limits.tokens_per_minute) == (0, 0)
    assert (limits.monthly_budget_usd, limits.monthly_tokens) == (0.0, 0)


def test_upstreams_may_be_fallbacks_of_each_other(write: Write) -> None:
    config = load_config(
        write(
            """
            [[upstream]]
            name = "one"
            base_url = "http://127.0.0.1:1/v1"
            retries = 2
            fallbacks = ["other"]
            [[upstream]]
            name = "other"
            base_url = "http://127.0.0.1:2/v1"
            fallbacks = ["one"]
            rename = { "gpt-5" = "my-deployment", "gpt-4.1" = "my-older-one" }
            """
        )
    )

    one, other = config.upstream
    assert (one.retries, one.fallbacks, dict(one.rename)) == (2, ("other",), {})
    assert (other.retries, other.fallbacks) == (0, ("one",))
    assert dict(other.rename) == {"gpt-5": "my-deployment", "gpt-4.1": "my-older-one"}


def test_prices_are_named_by_any_model(write: Write) -> None:
    config = load_config(write('[prices]\n"gpt-4.1" = [2, 8.0, 0.5]\nlocal = [0, 0]\n'))

    assert dict(config.prices) == {"gpt-4.1": (2.0, 8.0, 0.5), "local": (0.0, 0.0)}


def test_a_weight_may_be_negative() -> None:
    assert load_config(None, {"feedback": {"weights": {"copy": -1}}}).feedback.weights["copy"] == -1.0


def test_a_whole_number_may_stand_for_a_fraction() -> None:
    assert load_config(None, {"learner": {"run_interval_h": 1}}).learner.run_interval_h == 1.0


def test_open_mode_is_only_allowed_on_a_loopback_host() -> None:
    with pytest.raises(ConfigError, match=r"proxy\.host = '0\.0\.0\.0' needs \[tenancy\] mode = \"keys\""):
        load_config(None, {"proxy": {"host": "0.0.0.0"}})

    config = load_config(None, {"proxy": {"host": "0.0.0.0"}, "tenancy": {"mode": "keys"}})
    assert config.proxy.host == "0.0.0.0"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*nowhere\.toml"):
        load_config(tmp_path / "nowhere.toml")


def test_a_file_that_is_not_toml_is_named(write: Write) -> None:
    with pytest.raises(ConfigError, match=r"my\.toml is not valid TOML: .*line 1"):
        load_config(write("port: 1"))


def test_a_file_that_is_not_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "my.toml").write_bytes(b"\xff\xfe")

    with pytest.raises(ConfigError, match="cannot read"):
        load_config(tmp_path / "my.toml")


@pytest.mark.parametrize("url", ["postgres://x", "sqlite://", "sqlite:///", "tutelage.db"])
def test_a_url_that_is_no_sqlite_file_is_refused(url: str) -> None:
    config = load_config(None, {"store": {"url": url}})

    with pytest.raises(ConfigError, match=re.escape(repr(url))):
        database_path(config.store)


def test_three_slashes_are_relative_and_four_absolute() -> None:
    paths = [
        database_path(load_config(None, {"store": {"url": url}}).store) for url in ("sqlite:///a/b.db", "sqlite:////b")
    ]

    assert paths == [Path("a/b.db"), Path("/b")]


def test_settings_cannot_be_changed(config: Config) -> None:
    with pytest.raises(FrozenInstanceError):
        config.proxy.port = 1  # type: ignore[misc]
    with pytest.raises(TypeError):
        config.feedback.weights["copy"] = 1  # type: ignore[index]


def test_the_shipped_file_names_every_section_of_the_config() -> None:
    shipped = tomllib.loads(default_config_path().read_text(encoding="utf-8"))

    assert set(shipped) == set(Config.__dataclass_fields__)
