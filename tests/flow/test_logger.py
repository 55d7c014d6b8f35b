"""The client against the real learner: killed on either side, every message is there once."""

import subprocess
import sys
import textwrap
from pathlib import Path

from tests.flow.product import Product, eventually
from tutelage.client import ConversationLogger

CHANNEL = """
    import sys
    from tutelage.client import ConversationLogger
    logger = ConversationLogger(sys.argv[1], spill_directory=sys.argv[2], timeout_s=5.0)
    for number in range(100_000):
        for _ in range(10):
            logger.log(f"message {number}", "greet", 0.9, phone_number="+919876543210")
        if logger.sync():
            print(10 * (number + 1), flush=True)
"""


def channel(product: Product, spill: Path) -> "subprocess.Popen[str]":
    script = textwrap.dedent(CHANNEL)
    return subprocess.Popen(
        [sys.executable, "-c", script, product.learner_url, str(spill)], stdout=subprocess.PIPE, text=True
    )


def test_messages_survive_the_kill_of_learner_and_channel_and_are_there_once(product: Product, tmp_path: Path) -> None:
    spill = tmp_path / "spill"
    learner = product.start("learner")
    first = channel(product, spill)
    assert first.stdout is not None
    lines = [first.stdout.readline() for _ in range(30)]
    learner.kill()
    lines += [first.stdout.readline() for _ in range(30)]
    first.kill()
    first.wait()
    synced = int("".join([*lines, first.stdout.read()]).rpartition("\n")[0].split()[-1])
    first.stdout.close()
    product.start("learner")
    with ConversationLogger(product.learner_url, spill_directory=spill, handle_sigterm=False) as heir:
        heir.log("the heir", "greet", 0.9)
        assert heir.flush()
        eventually(lambda: sum(path.stat().st_size for path in spill.iterdir()) == 0, 30)
    rows = product.rows("SELECT input, count(*) AS n, min(user_hash) AS user FROM examples GROUP BY input")
    found = {row["input"]: row["n"] for row in rows}
    assert sum(n for text, n in found.items() if text != "the heir") >= synced
    assert set(found.values()) <= set(range(1, 11))  # ten of each, and the last ones only in part
    assert all(found[f"message {number}"] == 10 for number in range(synced // 10))
    assert not any("9876543210" in row["user"] for row in rows)
