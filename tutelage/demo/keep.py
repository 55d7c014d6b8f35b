"""The demo's database served on, by the real processes and the machine's clock, until Ctrl-C."""

from pathlib import Path

from store.config import load_config
from tutelage.demo.library import Library
from tutelage.demo.model import create_model
from tutelage.demo.options import demo_settings, to_toml
from tutelage.demo.sample import load_sample
from tutelage.demo.server import plain_config, serve_in_thread
from tutelage.up import run


def keep_serving(database: Path) -> int:
    """Serve proxy and console on *database*, with the offline model as upstream, and return the exit code.

    Raises:
        StartError: a port is taken.
    """
    settings_path = database.with_name("config.toml")
    with serve_in_thread(plain_config(create_model(Library(load_sample()))), "model") as port:
        settings_path.write_text(to_toml(demo_settings(database.parent, port)), encoding="utf-8")
        return run(settings_path, load_config(settings_path))
