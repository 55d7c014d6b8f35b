"""Other gateways beside us, each in the version that was looked at, each a relay to the same upstream.

``python -m bench.rivals`` (``make bench-rivals``) installs them into a folder that git ignores, about 900 MB; a
gateway that is not there is left out and named as missing. None of them records anything here.
"""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.measurement import Target
from bench.processes import free_port, idle_rate, running

HERE = Path(__file__).parent
FOLDER = Path(os.environ.get("BENCH_RIVALS", HERE.parent / ".rivals"))
KEY = "sk-bench-5f0c2d9e7a414b6c8e31"  # LiteLLM refuses a weak one; the mock upstream asks for none
ANNOUNCE_S = 30.0
TENSORZERO_VERSION, PORTKEY_VERSION, LITELLM_VERSION = "2026.6.0", "1.15.2", "1.106.2"
TENSORZERO_CONFIG = """
[gateway]
observability.enabled = false

[models.bench]
routing = ["mock"]

[models.bench.providers.mock]
type = "openai"
model_name = "bench"
api_base = "http://127.0.0.1:{upstream}/v1/"
api_key_location = "none"
"""
LITELLM_CONFIG = """
model_list:
  - model_name: bench
    litellm_params: {{model: openai/bench, api_base: "http://127.0.0.1:{upstream}/v1", api_key: {key}}}
litellm_settings: {{telemetry: false}}
general_settings: {{master_key: {key}}}
"""


@dataclass(frozen=True)
class Rival:
    """A gateway: where its program is once installed, how to install it and how to run it as a target."""

    name: str
    program: Path
    install: Callable[[], None]
    run: Callable[[Path, Path, int, int], AbstractContextManager[Target]]  # program, folder, upstream's port, core


def _python(name: str, requirement: str) -> Callable[[], None]:
    def install() -> None:
        folder = FOLDER / name
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        pip: list[str | Path] = [folder / "bin" / "python", "-m", "pip", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "install", requirement], check=True)

    return install


def _install_portkey() -> None:
    npm = shutil.which("npm")
    if npm is None:
        sys.exit("Portkey's gateway needs Node and npm")
    folder = FOLDER / "portkey"
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        [npm, "install", "--prefix", folder, "--no-audit", "--no-fund", f"@portkey-ai/gateway@{PORTKEY_VERSION}"],
        check=True,
    )


@contextmanager
def _tensorzero(program: Path, folder: Path, upstream_port: int, core: int) -> Iterator[Target]:
    config = folder / "tensorzero.toml"
    config.write_text(TENSORZERO_CONFIG.format(upstream=upstream_port))
    log = folder / "tensorzero.log"
    arguments = [program, HERE / "tensorzero_gateway.py", config]
    with running(arguments, core=core, port=None, log=log) as process:
        yield Target(
            f"TensorZero {TENSORZERO_VERSION}",
            _announced_port(log),
            process.pid,
            idle=idle_rate(process.pid),
            path="/openai/v1/chat/completions",
            model="tensorzero::model_name::bench",
            is_rival=True,
        )


def _announced_port(log: Path) -> int:
    deadline = time.monotonic() + ANNOUNCE_S
    while time.monotonic() < deadline:
        found = re.search(r"http://127\.0\.0\.1:(\d+)/openai", log.read_text(errors="replace"))
        if found:
            return int(found[1])
        time.sleep(0.05)
    raise RuntimeError(f"TensorZero did not start: {log.read_text(errors='replace')[-500:]}")


@contextmanager
def _portkey(program: Path, folder: Path, upstream_port: int, core: int) -> Iterator[Target]:
    port = free_port()
    arguments: list[str | Path] = [shutil.which("node") or "node", program, "--headless", f"--port={port}"]
    log = folder / "portkey.log"
    with running(arguments, core=core, port=port, log=log, environment={"NODE_ENV": "production"}) as process:
        headers = ("x-portkey-provider: openai", f"x-portkey-custom-host: http://127.0.0.1:{upstream_port}/v1")
        yield Target(
            f"Portkey {PORTKEY_VERSION}",
            port,
            process.pid,
            idle=idle_rate(process.pid),
            headers=headers,
            is_rival=True,
            can_stream=False,  # this build answers 500 to every stream under Node 20: "TypeError: immutable"
        )


@contextmanager
def _litellm(program: Path, folder: Path, upstream_port: int, core: int) -> Iterator[Target]:
    config, port = folder / "litellm.yaml", free_port()
    config.write_text(LITELLM_CONFIG.format(upstream=upstream_port, key=KEY))
    options = {"--config": str(config), "--host": "127.0.0.1", "--port": str(port), "--telemetry": "False"}
    arguments: list[str | Path] = [program, *(word for option in options.items() for word in option)]
    environment = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR", "PYTHONPATH": ""}
    log = folder / "litellm.log"
    with running(arguments, core=core, port=port, log=log, environment=environment) as process:
        name = f"LiteLLM proxy {LITELLM_VERSION}"
        yield Target(name, port, process.pid, idle=idle_rate(process.pid), is_rival=True)


RIVALS = (
    Rival(
        "TensorZero",
        FOLDER / "tensorzero" / "bin" / "python",
        _python("tensorzero", f"tensorzero=={TENSORZERO_VERSION}"),
        _tensorzero,
    ),
    Rival(
        "Portkey",
        FOLDER / "portkey" / "node_modules" / "@portkey-ai" / "gateway" / "build" / "start-server.js",
        _install_portkey,
        _portkey,
    ),
    Rival(
        "LiteLLM proxy",
        FOLDER / "litellm" / "bin" / "litellm",
        _python("litellm", f"litellm[proxy]=={LITELLM_VERSION}"),
        _litellm,
    ),
)


def main() -> None:
    """Install every gateway that is not there yet."""
    for rival in RIVALS:
        if rival.program.exists():
            print(f"{rival.name} is installed: {rival.program}")
        else:
            print(f"installing {rival.name} ...", flush=True)
            rival.install()


if __name__ == "__main__":
    main()
