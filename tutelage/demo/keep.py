"""The demo's database served on, by the real processes and the machine's clock, until Ctrl-C."""

from pathlib import Path

from store.config import load_config
from tutelage.demo.library import Library
from tutelage.demo.model import create_model
from tutelage.demo.options import DATABASE, demo_settings, to_toml
from tutelage.demo.sample import load_sample
from tutelage.demo.server import plain_config, serve_in_thread
from tutelage.up import run


def holds_demo(folder: Path) -> bool:
    """Return whether a demo left its database in *folder*."""
    return (folder / DATABASE).is_file()


def keep_serving(folder: Path) -> int:
    """Serve the demo in *folder*, proxy and console, with the offline model as upstream; return the exit code.

    Raises:
        StartError: a port is taken.
    """
    settings_path = folder / "config.toml"
    with serve_in_thread(plain_config(create_model(Library(load_sample()))), "model") as port:
        settings_path.write_text(to_toml(demo_settings(folder, port)), encoding="utf-8")
        return run(settings_path, load_config(settings_path))
