"""What a person may choose about a demo, and the settings that it runs with."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from store.config import Config, load_config

DATABASE = "tutelage.db"  # its file in the demo's folder
HOLDOUT = 0.10  # share of conversations; twice the default, so that a few weeks are enough to compare
SNAPSHOT_POLL_S = 0.02  # a simulated day takes a second: a new generation must not wait for a quarter of it


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """The size of a demo; the defaults take about a minute on two slow cores."""

    seed: int = 0
    weeks: int = 4
    users: int = 150
    visits_per_day: int = 240
    watch_days: int = 7  # at the start, without any learning run: what "before" means
    run_interval_h: float | None = None  # between pattern runs; None: as [learner] has it
    directory: Path | None = None  # where the database goes; None: a new temporary folder, which stays

    @property
    def days(self) -> int:
        return self.weeks * 7


def demo_settings(folder: Path, model_port: int) -> dict[str, Any]:
    """Return what the demo overrides of the shipped settings, in the shape of config.toml."""
    return {
        "store": {"url": f"sqlite:///{folder / DATABASE}"},
        "upstream": [{"name": "offline-demo", "base_url": f"http://127.0.0.1:{model_port}/v1"}],
        "patterns": {"holdout": HOLDOUT},
        "contexts": {"hold_back": 0.0},  # the approved entry is shown in one conversation, which must get it
    }


def demo_config(settings: Mapping[str, Any]) -> Config:
    """Return the settings of the replay itself, which polls faster than a service would."""
    return load_config(None, {**settings, "proxy": {"port": 0, "snapshot_poll_s": SNAPSHOT_POLL_S}})


def to_toml(settings: Mapping[str, Any]) -> str:
    """Return *settings* as a file for ``tutelage --config``: tables, and lists of tables, of texts and numbers.

    >>> print(to_toml({"store": {"url": "sqlite:///a.db"}, "upstream": [{"name": "m"}]}), end="")
    [store]
    url = "sqlite:///a.db"
    <BLANKLINE>
    [[upstream]]
    name = "m"
    """
    blocks = []
    for name, value in settings.items():
        tables = value if isinstance(value, list) else [value]
        head = f"[[{name}]]" if isinstance(value, list) else f"[{name}]"
        for table in tables:
            lines = [f"{key} = {_toml_value(item)}" for key, item in table.items()]
            blocks.append("\n".join([head, *lines]) + "\n")
    return "\n".join(blocks)


def _toml_value(value: str | float) -> str:
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    return repr(value)
