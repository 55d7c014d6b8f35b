"""Settings: the shipped config.toml, overridden key by key by a user's file, as frozen dataclasses.

The code holds no second default: every value comes from a file. ``load_config`` is called once per process;
functions get the section they need.
"""

import difflib
import ipaddress
import math
import re
import tomllib
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from store.errors import ConfigError

Section = TypeVar("Section")

LOCAL_MODEL: Final = "local"  # of embedding.model: nothing but the package's own word vectors


@dataclass(frozen=True, slots=True)
class ProxySection:
    host: str
    port: int
    workers: int
    max_body_mb: float
    max_connections: int
    drain_timeout_s: float
    snapshot_poll_s: float


@dataclass(frozen=True, slots=True)
class TenancySection:
    mode: Literal["open", "keys"]


@dataclass(frozen=True, slots=True)
class StoreSection:
    url: str
    busy_timeout_ms: int


@dataclass(frozen=True, slots=True)
class UpstreamSection:
    name: str
    base_url: str
    models: tuple[str, ...]
    provider: str
    api_key_env: str
    connect_timeout_s: float
    first_byte_timeout_s: float
    total_timeout_s: float
    max_idle_connections: int
    retries: int
    retry_base_s: float
    retry_max_s: float
    fallbacks: tuple[str, ...]
    breaker_failures: int
    breaker_open_s: float
    rename: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class LimitsSection:
    """What one caller may do; 0 = no limit."""

    requests_per_minute: int
    tokens_per_minute: int
    monthly_budget_usd: float
    monthly_tokens: int


@dataclass(frozen=True, slots=True)
class RecordingSection:
    directory: str
    poll_ms: float
    segment_mb: float
    max_backlog_mb: float
    max_message_kb: float
    conversation_cache: int
    block_cache: int
    response_cache: int
    regenerate_window_s: float


@dataclass(frozen=True, slots=True)
class FeedbackSection:
    wait_s: float
    allowed_origins: tuple[str, ...]
    max_batch: int
    max_text_kb: float
    dwell_threshold_s: float
    dwell_short_answer_chars: int
    follow_up_window_s: float
    weights: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class PatternsSection:
    enabled: bool
    max_tokens: int
    holdout: float
    hold_back: float
    min_signals: int
    trial_share: float
    active_share: float
    window_days: float
    settle_days: float
    half_life_days: float
    ema_alpha_start: float
    ema_alpha_end: float
    ema_alpha_signals: int
    small_signals: int
    small_trial_share: float
    discovery_q: float
    min_users: int
    avoid: bool
    max_arms_per_dimension: int
    activate_confidence: float
    activate_e_value: float
    provisional: Literal["evidence", "posterior", "never"]
    proven_fdr: float
    cooldown_days: float
    warmup_runs: int
    warmdown_runs: int
    warmdown_below: float
    warmdown_cancel: float
    prune_idle_days: float
    prune_confidence: float
    prune_min_signals: int
    least_lift: float
    futility_days: float
    revive_after_days: float
    revive_harmful_after_days: float
    guardrail_e_value: float
    guardrail_change: float
    crash_drop: float
    crash_z: float
    blame_z: float
    freeze_days: float
    harm_z: float
    change_years: float
    max_candidates: int
    require_trial_approval: bool
    max_rule_tokens: int
    max_term_replies: int


@dataclass(frozen=True, slots=True)
class ContextsSection:
    enabled: bool
    max_tokens: int
    max_items: int
    similarity_threshold: float
    hold_back: float
    hold_back_after_h: float
    evidence_days: float
    alarm_share: float
    max_unrelated: float
    least_similarity: float
    exact_up_to: int
    load_wait_s: float
    unload_after_s: float


@dataclass(frozen=True, slots=True)
class EmbeddingSection:
    model: str
    ask_per_request: bool
    cache_size: int
    base_url: str
    api_key_env: str
    request_dimensions: int
    timeout_s: float
    question_cache: int
    breaker_failures: int
    breaker_open_s: float
    similarity_threshold: float
    batch_size: int
    batch_timeout_s: float
    max_cost_usd: float


@dataclass(frozen=True, slots=True)
class RefitSection:
    enabled: bool
    interval_days: float
    min_texts: int
    max_texts: int
    max_tokens: int
    max_cost_usd: float


@dataclass(frozen=True, slots=True)
class QuestionTypesSection:
    min_confidence: float


@dataclass(frozen=True, slots=True)
class KnowledgeSection:
    enabled: bool
    max_candidates: int
    prescreen_batch: int
    max_prescreened: int
    grouping: Literal["blend", "semantic", "tags"]
    group_threshold: float
    tag_weight: float
    min_shared_tags: int
    duplicate_similarity: float
    max_nearest: int
    pending_days: float
    correction_history_h: float
    max_removals_per_day: int
    learn_unconfirmed: bool


@dataclass(frozen=True, slots=True)
class ModelsSection:
    prescreen: str
    extract: str
    wording: str
    api_base: str
    api_key_env: str
    timeout_s: float
    max_retries: int
    max_cost_usd_per_run: float
    max_tokens_per_run: int


@dataclass(frozen=True, slots=True)
class LearnerSection:
    host: str
    port: int
    run_interval_h: float
    knowledge_interval_h: float
    nlu_interval_h: float
    poll_s: float
    run_wait_s: float
    job_attempts: int
    job_retry_s: float
    job_lease_s: float
    max_body_mb: float
    max_items: int
    sign_in_attempts: int
    sign_in_window_s: float
    models: ModelsSection


@dataclass(frozen=True, slots=True)
class AlertsSection:
    webhook_url: str
    webhook_secret_env: str
    timeout_s: float
    retry_s: float
    retry_max_s: float
    give_up_h: float


@dataclass(frozen=True, slots=True)
class TrainingSection:
    dataset_id: str
    review_below_confidence: float
    audit_share: float
    collect_traffic: bool
    max_traffic_examples: int


@dataclass(frozen=True, slots=True)
class NluSection:
    enabled: bool
    min_examples: int
    max_examples: int
    max_features: int
    held_out: float
    reviewed_weight: float
    penalty: float
    unfamiliar: float
    unsure: float
    min_accuracy: float
    margin: float
    keep_versions: int


@dataclass(frozen=True, slots=True)
class LogSection:
    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"]
    format: Literal["text", "json"]
    requests: bool
    messages: bool


@dataclass(frozen=True, slots=True)
class TelemetrySection:
    otlp_endpoint: str
    interval_s: float
    max_waiting: int
    messages: bool


@dataclass(frozen=True, slots=True)
class Config:
    """All settings; one attribute per section of config.toml."""

    proxy: ProxySection
    tenancy: TenancySection
    store: StoreSection
    upstream: tuple[UpstreamSection, ...]
    limits: LimitsSection
    prices: Mapping[str, tuple[float, ...]]
    recording: RecordingSection
    feedback: FeedbackSection
    patterns: PatternsSection
    contexts: ContextsSection
    embedding: EmbeddingSection
    refit: RefitSection
    question_types: QuestionTypesSection
    knowledge: KnowledgeSection
    learner: LearnerSection
    alerts: AlertsSection
    training: TrainingSection
    nlu: NluSection
    log: LogSection
    telemetry: TelemetrySection


def default_config_path() -> Path:
    """Return where the shipped config.toml lies: inside an installed wheel, or at the top of a checkout."""
    package = Path(__file__).parent
    installed = package / "config.toml"
    return installed if installed.exists() else package.parent / "config.toml"


def load_config(path: Path | None = None, overrides: Mapping[str, Any] | None = None) -> Config:
    """Return the shipped settings, overridden by the file *path* and then by *overrides* (same shape as the file).

    A list of tables (``[[upstream]]``) in a later source replaces the earlier list; each of its tables takes
    its missing keys from the shipped table.

    Raises:
        ConfigError: a file cannot be read, or a key is unknown, of the wrong type or out of range.
    """
    settings = _read(default_config_path())
    upstream_defaults = settings["upstream"][0]
    for source in (_read(path) if path else {}, overrides or {}):
        settings = _merge(settings, source, "")
    settings["upstream"] = [
        _merge(_upstream_defaults(upstream_defaults, upstream), upstream, "upstream.")
        if isinstance(upstream, Mapping)
        else upstream
        for upstream in settings["upstream"]
    ]
    config = _build(Config, settings, "")
    _check(config)
    return config


def _upstream_defaults(shipped: Mapping[str, Any], upstream: Mapping[str, Any]) -> dict[str, Any]:
    defaults = {**shipped, "models": ["*"], "api_key_env": ""}
    if upstream.get("provider", shipped["provider"]) != shipped["provider"]:
        defaults["base_url"] = ""  # the provider's own address: never another provider's
    return defaults


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise ConfigError(f"cannot read {path}: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise ConfigError(f"cannot read {path}: {exc}") from exc
    except tomllib.TOMLDecodeError as exc:
        raise ConfigError(f"{path} is not valid TOML: {exc}") from exc


_FREE_TABLES = ("prices.", "upstream.rename.")  # their keys are names of models


def _merge(base: Mapping[str, Any], source: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    merged = dict(base)
    for key, value in source.items():
        if key not in base and prefix not in _FREE_TABLES:
            raise ConfigError(_unknown(prefix + key, [prefix + known for known in base]))
        if isinstance(base.get(key), Mapping):
            if not isinstance(value, Mapping):
                raise ConfigError(f"{prefix}{key} must be a table, not {value!r}")
            value = _merge(base[key], value, f"{prefix}{key}.")  # noqa: PLW2901
        merged[key] = value
    return merged


def _unknown(key: str, known: Sequence[str]) -> str:
    nearest = difflib.get_close_matches(key, known, n=1, cutoff=0.0)
    return f"unknown setting {key!r}; the nearest known one is {nearest[0]!r}"


def _build(kind: type[Section], values: Mapping[str, Any], prefix: str) -> Section:
    hints = get_type_hints(kind)
    names = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    for key in values:
        if key not in names:
            raise ConfigError(_unknown(prefix + key, [prefix + name for name in names]))
    missing = [name for name in names if name not in values]
    if missing:
        raise ConfigError(f"missing setting {prefix + missing[0]!r}")
    return kind(**{name: _convert(hints[name], values[name], prefix + name) for name in names})


def _convert(hint: Any, value: Any, name: str) -> Any:
    origin = get_origin(hint)
    if is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{name} must be a table, not {value!r}")
        return _build(hint, value, name + ".")  # type: ignore[arg-type]
    if origin is tuple:
        if not isinstance(value, list):
            raise ConfigError(f"{name} must be a list, not {value!r}")
        return tuple(_convert(get_args(hint)[0], item, f"{name}[{i}]") for i, item in enumerate(value))
    if origin is Literal:
        if value not in get_args(hint):
            raise ConfigError(f"{name} must be one of {', '.join(get_args(hint))}, not {value!r}")
        return value
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{name} must be a table, not {value!r}")
        item_hint = get_args(hint)[1]
        return types.MappingProxyType({key: _convert(item_hint, item, f"{name}.{key}") for key, item in value.items()})
    if origin in (Union, types.UnionType):
        raise TypeError(f"{name}: settings have one type")
    return _convert_scalar(hint, value, name)


def _convert_scalar(hint: Any, value: Any, name: str) -> Any:
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, hint) or (hint is not bool and isinstance(value, bool)):
        raise ConfigError(f"{name} must be {hint.__name__}, not {value!r}")
    if hint in (int, float):
        _check_number(name, value)
    return value


_SHARES = {
    "patterns": (
        "holdout",
        "hold_back",
        "trial_share",
        "small_trial_share",
        "active_share",
        "activate_confidence",
        "proven_fdr",
        "crash_drop",
    ),
    "contexts": ("similarity_threshold", "max_unrelated", "least_similarity", "hold_back", "alarm_share"),
    "embedding": ("similarity_threshold",),
    "question_types": ("min_confidence",),
    "knowledge": ("group_threshold", "tag_weight", "duplicate_similarity"),
    "training": ("review_below_confidence", "audit_share"),
    "nlu": ("held_out", "unfamiliar", "unsure", "min_accuracy", "margin"),
}


# With 0 nothing would ever happen, be let in or end; the other numbers may be 0.
_MORE_THAN_ZERO = {
    "proxy": ("workers", "max_body_mb", "max_connections", "snapshot_poll_s"),
    "upstream": ("connect_timeout_s", "breaker_open_s"),
    "recording": ("poll_ms", "segment_mb", "max_backlog_mb", "max_message_kb"),
    "feedback": ("max_batch", "max_text_kb"),
    "refit": ("min_texts", "max_texts"),
    "patterns": (
        "window_days",
        "half_life_days",
        "ema_alpha_signals",
        "activate_e_value",
        "proven_fdr",
        "guardrail_e_value",
        "warmup_runs",
        "warmdown_runs",
    ),
    "contexts": ("evidence_days",),
    "embedding": (
        "cache_size",
        "timeout_s",
        "question_cache",
        "breaker_failures",
        "breaker_open_s",
        "batch_size",
        "batch_timeout_s",
    ),
    "knowledge": ("max_candidates", "prescreen_batch", "max_prescreened"),
    "learner": (
        "run_interval_h",
        "knowledge_interval_h",
        "nlu_interval_h",
        "poll_s",
        "job_attempts",
        "job_lease_s",
        "max_body_mb",
        "max_items",
        "sign_in_attempts",
    ),
    "learner.models": ("timeout_s",),
    "alerts": ("timeout_s", "retry_s", "give_up_h"),
    "telemetry": ("interval_s", "max_waiting"),
    "nlu": ("min_examples", "max_examples", "max_features", "held_out", "reviewed_weight", "penalty", "keep_versions"),
}


MAX_WEIGHT: Final = 10  # of a signal: a response's satisfaction ends at 1, and squares of weights must stay finite


def _check_number(name: str, value: float) -> None:
    section, _, key = re.sub(r"\[\d+\]", "", name).rpartition(".")
    if not math.isfinite(value):
        raise ConfigError(f"{name} must be a finite number, not {value!r}")
    if section == "feedback.weights":
        if abs(value) > MAX_WEIGHT:
            raise ConfigError(f"{name} must be between -{MAX_WEIGHT} and {MAX_WEIGHT}, not {value!r}")
        return
    if value < 0:
        raise ConfigError(f"{name} must not be negative, not {value!r}")
    if not value and key in _MORE_THAN_ZERO.get(section, ()):
        raise ConfigError(f"{name} must be more than 0")


_ORIGIN: Final = re.compile(r"https?://[^/\\s]+", re.IGNORECASE)


def _check_origins(origins: Sequence[str]) -> None:
    for origin in origins:
        if origin != "*" and not _ORIGIN.fullmatch(origin):
            raise ConfigError(
                f"feedback.allowed_origins must hold origins such as 'https://app.example' or '*', not {origin!r}"
            )


def _check(config: Config) -> None:
    _check_origins(config.feedback.allowed_origins)
    for section, names in _SHARES.items():
        for name in names:
            value = getattr(getattr(config, section), name)
            if not 0 <= value <= 1:
                raise ConfigError(f"{section}.{name} must be between 0 and 1, not {value!r}")
    for port in (config.proxy.port, config.learner.port):
        if not 0 <= port <= 65535:
            raise ConfigError(f"port must be between 0 and 65535, not {port!r}")
    if not config.upstream:
        raise ConfigError("at least one [[upstream]] is needed")
    for upstream in config.upstream:
        is_own_address = not upstream.base_url and upstream.provider != "openai"
        if not is_own_address and not upstream.base_url.startswith(("http://", "https://")):
            raise ConfigError(f"upstream.base_url must be an http(s) URL, not {upstream.base_url!r}")
    _check_upstream_names(config.upstream)
    for model, price in config.prices.items():
        if len(price) not in (2, 3):
            raise ConfigError(
                f"prices.{model} must be [input, output] or [input, output, cached input], not {list(price)!r}"
            )
    url = config.alerts.webhook_url
    if url and not url.startswith(("http://", "https://")):
        raise ConfigError("alerts.webhook_url must be an http(s) URL, or empty")  # not shown: it may hold a token
    _check_embedding(config.embedding)
    _check_open_mode(config)


def _check_embedding(section: EmbeddingSection) -> None:
    if section.model != LOCAL_MODEL and not section.base_url.startswith(("http://", "https://")):
        raise ConfigError(
            f"embedding.model = {section.model!r} needs embedding.base_url, an http(s) URL, not {section.base_url!r}"
        )


def _check_upstream_names(upstreams: Sequence[UpstreamSection]) -> None:
    names = [upstream.name for upstream in upstreams]
    if len(set(names)) != len(names):
        raise ConfigError(f"upstream.name must be unique, not {names!r}")
    for upstream in upstreams:
        for name in upstream.fallbacks:
            if name == upstream.name:
                raise ConfigError(f"upstream {name!r} cannot be its own fallback; retries are for that")
            if name not in names:
                nearest = difflib.get_close_matches(name, names, n=1, cutoff=0.0)
                raise ConfigError(
                    f"unknown upstream {name!r} in the fallbacks of {upstream.name!r}; the nearest known one is "
                    f"{nearest[0]!r}"
                )


def _check_open_mode(config: Config) -> None:
    if config.tenancy.mode == "open":
        for section_name, host in (("proxy", config.proxy.host), ("learner", config.learner.host)):
            if not is_loopback(host):
                raise ConfigError(
                    f'{section_name}.host = {host!r} needs [tenancy] mode = "keys": '
                    "open mode is only allowed on a loopback host"
                )


def is_loopback(host: str) -> bool:
    """Return whether *host* is this machine only.

    >>> is_loopback("127.0.0.1"), is_loopback("0.0.0.0"), is_loopback("localhost"), is_loopback("127.0.0.1.example")
    (True, False, True, False)
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def database_path(section: StoreSection) -> Path:
    """Return the file of a ``sqlite:///`` URL (three slashes: relative; four: absolute).

    Raises:
        ConfigError: the URL names another engine or no file.
    """
    prefix = "sqlite:///"
    if not section.url.startswith(prefix) or len(section.url) == len(prefix):
        raise ConfigError(f"store.url must be sqlite:///relative/file or sqlite:////absolute/file, not {section.url!r}")
    return Path(section.url.removeprefix(prefix))


def segment_directory(config: Config) -> Path:
    """Return where responses wait for the database: ``[recording] directory``, or beside the database file."""
    if config.recording.directory:
        return Path(config.recording.directory)
    path = database_path(config.store)
    return path.with_name(path.name + ".segments")


def context_graph_directory(config: Config) -> Path:
    """Return where the graphs over many contexts are kept: beside the database file."""
    path = database_path(config.store)
    return path.with_name(path.name + ".graphs")
