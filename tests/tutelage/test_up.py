"""``tutelage up``: two processes, watched, restarted, stopped together."""

import dataclasses
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from store.config import Config, load_config
from tests.flow.product import free_port
from tutelage.up import Service, StartError, Supervisor, check_port_free, services_of, welcome

STOP_S = 10.0
ANSWERING = """
import http.server, signal, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/die":
            import os; os._exit(3)
        self.send_response(200); self.send_header("content-length", "0"); self.end_headers()
    def log_message(self, *_): pass
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def service(name: str = "proxy", script: str = ANSWERING) -> Service:
    port = free_port()
    return Service(name, [sys.executable, "-c", script, str(port)], "127.0.0.1", port)


def eventually(look: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + STOP_S
    while not look():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


def test_both_services_answer_and_one_stop_ends_both() -> None:
    supervisor = Supervisor([service("proxy"), service("learner")], stop_timeout_s=STOP_S)
    supervisor.start()
    assert all(child.answers() for child in supervisor.services)
    supervisor.stop()
    assert not any(child.is_running for child in supervisor.services)
    assert [child.process.returncode for child in supervisor.services if child.process] == [0, 0]


def test_a_service_that_dies_is_started_again_and_that_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    child = service()
    supervisor = Supervisor([child], stop_timeout_s=STOP_S)
    supervisor.start()
    first = child.process
    assert first is not None
    first.send_signal(signal.SIGKILL)
    watcher = threading.Thread(target=supervisor.watch)
    watcher.start()
    try:
        eventually(lambda: child.process is not first and child.answers())
    finally:
        supervisor.request_stop(signal.SIGTERM, None)
        watcher.join(STOP_S)
        supervisor.stop()
    assert "the proxy ended with exit code -9; starting it again in 1 s" in capsys.readouterr().err


def test_a_service_that_ends_at_once_is_an_error_not_a_loop() -> None:
    supervisor = Supervisor([service(script="raise SystemExit(4)")], stop_timeout_s=STOP_S)
    with pytest.raises(StartError, match="the proxy ended with exit code 4"):
        supervisor.start()
    supervisor.stop()


def test_a_service_that_does_not_stop_is_killed_after_the_timeout() -> None:
    deaf = ANSWERING.replace("lambda *_: sys.exit(0)", "signal.SIG_IGN")
    supervisor = Supervisor([service(script=deaf)], stop_timeout_s=0.3)
    supervisor.start()
    supervisor.stop()
    assert [child.process.returncode for child in supervisor.services if child.process] == [-9]


def test_a_port_in_use_is_named_with_its_setting() -> None:
    child = service("learner")
    with socket.create_server((child.host, child.port)), pytest.raises(StartError) as raised:
        check_port_free(child)
    assert str(child.port) in str(raised.value)
    assert "[learner] port" in str(raised.value)


def test_the_welcome_names_the_line_to_change_and_where_things_are(config: Config) -> None:
    text = welcome(config, {})
    assert 'base_url="http://127.0.0.1:8484/v1"' in text
    assert 'base_url="http://127.0.0.1:8484"  # Anthropic\'s SDK adds the /v1 itself' in text
    assert "http://127.0.0.1:8485/" in text
    assert "tutelage.db" in text
    everywhere = dataclasses.replace(config, proxy=dataclasses.replace(config.proxy, host="0.0.0.0"))
    assert 'base_url="http://127.0.0.1:8484/v1"' in welcome(everywhere, {})


def test_an_upstream_without_an_address_is_named_by_its_provider() -> None:
    config = load_config(None, {"upstream": [{"name": "claude", "provider": "anthropic"}]})
    assert "->  claude (anthropic)" in welcome(config, {})


def test_the_welcome_in_keys_mode_says_whose_key_is_missing() -> None:
    upstreams = [{"name": "openai", "base_url": "https://api.openai.com/v1", "api_key_env": "OPENAI_API_KEY"}]
    config = load_config(None, {"tenancy": {"mode": "keys"}, "upstream": upstreams})
    assert "keys create --tenant" in welcome(config, {})
    assert "No key for upstream 'openai': OPENAI_API_KEY is not set" in welcome(config, {})
    assert "No key" not in welcome(config, {"OPENAI_API_KEY": "sk-1"})


def test_the_children_get_the_same_settings(config: Config) -> None:
    three = dataclasses.replace(
        config, proxy=dataclasses.replace(config.proxy, workers=3)
    )  # as --workers may have said
    assert [child.command[3:] for child in services_of(Path("my.toml"), three)] == [
        ["--config", "my.toml", "proxy", "--workers", "3"],
        ["--config", "my.toml", "learner"],
    ]
    assert [child.command[3:] for child in services_of(None, config)] == [["proxy", "--workers", "1"], ["learner"]]


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_stops_the_learner_cleanly(tmp_path: Path, stop: signal.Signals) -> None:
    port = free_port()
    settings = tmp_path / "tutelage.toml"
    settings.write_text(f'[learner]\nport = {port}\n[store]\nurl = "sqlite:///{tmp_path / "tutelage.db"}"\n')
    command = [sys.executable, "-m", "tutelage", "--config", str(settings), "learner"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        child = Service("learner", [], "127.0.0.1", port, process=None)
        eventually(child.answers)
        process.send_signal(stop)
        _, errors = process.communicate(timeout=STOP_S)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors


def test_a_learner_whose_port_is_taken_says_so_in_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = tmp_path / "tutelage.toml"
        port = taken.getsockname()[1]
        settings.write_text(f'[learner]\nport = {port}\n[store]\nurl = "sqlite:///{tmp_path / "tutelage.db"}"\n')
        command = [sys.executable, "-m", "tutelage", "--config", str(settings), "learner"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert f"cannot listen on 127.0.0.1:{port}" in done.stderr


@pytest.mark.parametrize("after_s", [0.3, 0.6, 0.9, 1.3])
def test_ctrl_c_amid_the_start_leaves_no_traceback_and_no_process(tmp_path: Path, after_s: float) -> None:
    ports = [free_port(), free_port()]
    settings = tmp_path / "tutelage.toml"
    settings.write_text(
        f"[proxy]\nport = {ports[0]}\n[learner]\nport = {ports[1]}\n"
        f'[store]\nurl = "sqlite:///{tmp_path / "tutelage.db"}"\n'
    )
    command = [sys.executable, "-m", "tutelage", "--config", str(settings), "up"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as process:
        time.sleep(after_s)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to everything in the foreground
        said, _ = process.communicate(timeout=30)
    assert "Traceback" not in said
    assert not any(Service("", [], "127.0.0.1", port).answers() for port in ports)


def test_a_database_that_cannot_be_had_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    settings = tmp_path / "tutelage.toml"
    settings.write_text(
        f"[proxy]\nport = {free_port()}\n[learner]\nport = {free_port()}\n"
        f'[store]\nurl = "sqlite:///{tmp_path / "file" / "tutelage.db"}"\n'
    )
    command = [sys.executable, "-m", "tutelage", "--config", str(settings), "up"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith(f"Error: {tmp_path / 'file' / 'tutelage.db'}: ")
    assert done.stderr.count("\n") == 1
