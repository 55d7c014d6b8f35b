"""Every Python block of docs/cookbook.md runs as it stands, and gets what was learned."""

import os
import re
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from tests.flow.compared import RULE
from tests.flow.conftest import TELEMETRY_OFF
from tests.flow.product import APP_KEY, Product
from tests.provider.answers import Answer, Call
from tests.provider.script import Provider
from tests.upstream import Upstream

TEXT = (Path(__file__).parents[2] / "docs" / "cookbook.md").read_text(encoding="utf-8")
ADDRESS = "http://127.0.0.1:8484"
ANSWER = "Open Settings, then Security."


def blocks() -> list[tuple[str, str]]:
    return [(heading, code) for heading in re.split(r"^## ", TEXT, flags=re.MULTILINE)[1:] for code in _python(heading)]


def _python(section: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", section, re.DOTALL)


@pytest.mark.parametrize(
    ("heading", "code"), [pytest.param(h, c, id=f"{h.splitlines()[0]} {i}") for i, (h, c) in enumerate(blocks())]
)
def test_a_block_runs_as_it_stands(taught: Product, provider_server: Upstream, heading: str, code: str) -> None:
    is_structured = "instructor" in heading.splitlines()[0]
    answer = Answer(None, calls=(Call("Advice", {"steps": [ANSWER]}),)) if is_structured else Answer(ANSWER)
    provider_server.script = Provider(f"cookbook-{zlib.crc32(code.encode())}", [answer] * 3)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code.replace(ADDRESS, taught.proxy_url)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, **TELEMETRY_OFF, "OPENAI_API_KEY": APP_KEY, "ANTHROPIC_API_KEY": APP_KEY},
    )
    assert done.returncode == 0, done.stderr
    assert ("201" if heading.startswith("Feedback") else ANSWER) in done.stdout
    assert RULE in provider_server.last.body.decode()


def test_the_cookbook_names_every_client_that_the_tests_play() -> None:
    headings = set(re.findall(r"^## (.+)$", TEXT, re.MULTILINE))
    assert {"OpenAI", "Anthropic", "LangChain", "LlamaIndex", "pydantic-ai", "instructor", "curl"} <= headings
    assert len(blocks()) >= 8
