"""What it costs to collect training data: a million messages over HTTP, looked through while they come; the client.

``python -m bench.ingest``: the learner in a process of its own, deliveries of 1,000 messages as channels send them.
"""

import argparse
import http.client
import json
import random
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from bench.bars import at_least, at_most, print_bar, table
from bench.processes import free_port, running, tutelage_command, usage
from tutelage.client import ConversationLogger

N, QUICK_N = 1_000_000, 20_000
STEPS = 10  # of which each is measured by itself
DELIVERY = 1000
DATASET = "/api/training/datasets/ds-auto-training"
N_LOGS = 20_000
LOG_US, STEADY, LISTED_MS = 50.0, 0.5, 100.0
WORDS = "track cancel change return refund find pay open close block show move book split check".split()  # noqa: SIM905
THINGS = "order card account parcel invoice booking password address seat delivery plan bill".split()  # noqa: SIM905
ENDS = ("", " please", " today", " as soon as you can", " before the weekend", " it is urgent", " for my mother")


@dataclass(frozen=True)
class Step:
    """One tenth of the messages."""

    n: int  # that are there now
    per_s: float
    cpu_us: float  # of the learner, a message
    memory_mb: float


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.ingest", description=__doc__)
    parser.add_argument("--n", type=int, default=N)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--folder", help="keep the database here")
    arguments = parser.parse_args()
    n = QUICK_N if arguments.quick else arguments.n
    with tempfile.TemporaryDirectory(prefix="tutelage-bench-") as name:
        folder = Path(arguments.folder or name)
        port = free_port()
        settings = folder / "tutelage.toml"
        settings.write_text(
            f'[store]\nurl = "sqlite:///{folder / "tutelage.db"}"\n[learner]\nport = {port}\n[log]\nlevel = "WARNING"\n'
        )
        command = [*tutelage_command(settings)[:-1], "learner"]
        with running(command, core=None, port=port, log=folder / "learner.log") as process:
            steps = _send_all(port, process.pid, n)
            looks = _look(port)
            size_mb = (folder / "tutelage.db").stat().st_size / 1e6
        caller, worker = _log(folder)
    _report(n, steps, looks, size_mb, caller, worker)


def _delivery(rng: random.Random, first: int, count: int) -> bytes:
    """Return messages of some hundred intents, one in six of them unsure, and one rare word in a hundred thousand."""
    items = []
    for number in range(first, first + count):
        verb, thing = rng.choice(WORDS), rng.choice(THINGS)
        rare = " with a zeppelin" if number % 100_000 == 7 else ""
        items.append(
            {
                "phoneNumber": f"+9198{rng.randrange(10**8):08d}",
                "messageText": f"{verb} my {thing} {rng.randrange(100_000)}{rare}{rng.choice(ENDS)}",
                "intent": f"{verb}_{thing}",
                "confidence": round(min(1.0, rng.betavariate(6, 1.2)), 3),
                "currentStep": "main_menu",
                "timestamp": 1_698_345_600_000 + number * 50,
            }
        )
    return json.dumps({"conversations": items}).encode()


def _send_all(port: int, pid: int, n: int) -> list[Step]:
    rng = random.Random(0)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    steps = []
    for step in range(STEPS):
        size = n // STEPS
        before, waited_s = usage(pid), 0.0
        for first in range(step * size, (step + 1) * size, DELIVERY):
            body = _delivery(rng, first, min(DELIVERY, (step + 1) * size - first))
            began = time.perf_counter()
            connection.request("POST", "/api/training/conversations/bulk", body, {"content-type": "application/json"})
            answer = json.loads(connection.getresponse().read())
            waited_s += time.perf_counter() - began
            if not answer.get("success"):
                raise RuntimeError(f"the ingest answered {answer}")
        after = usage(pid)
        steps.append(
            Step((step + 1) * size, size / waited_s, (after.cpu_ns - before.cpu_ns) / size / 1e3, after.memory_mb)
        )
        print(steps[-1], file=sys.stderr, flush=True)
    connection.close()
    return steps


def _look(port: int) -> list[tuple[str, float]]:
    """Return what a person looks at, and the median milliseconds of the answer."""
    words = {
        "list of datasets, with sizes": "/api/training/datasets",
        "first page of 100": f"{DATASET}/examples",
        "page in the middle": f"{DATASET}/examples?cursor={_middle(port)}",
        "tag confidence:95": f"{DATASET}/examples?tag=confidence:95",
        "tag needs_review": f"{DATASET}/examples?tag=needs_review",
        "an intent": f"{DATASET}/examples?intent=book_seat",
        "an intent and a tag": f"{DATASET}/examples?intent=book_seat&tag=needs_review",
        "a word that is in most": f"{DATASET}/examples?q=my",
        "a word that is rare": f"{DATASET}/examples?q=zeppelin",
        "three words": f"{DATASET}/examples?q={quote('book seat urgent')}",
        "intents with their counts": f"{DATASET}/facets?limit=1000",
        "review queue of 20": f"{DATASET}/review",
        "console: the overview": "/",
        "console: the dataset": "/datasets/ds-auto-training",
    }
    return [(what, _median_ms(port, path)) for what, path in words.items()]


def _middle(port: int) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    cursor = ""
    for _ in range(3):
        connection.request("GET", f"{DATASET}/examples?limit=1000{f'&cursor={cursor}' if cursor else ''}")
        cursor = json.loads(connection.getresponse().read())["next_cursor"]
    connection.close()
    return cursor


def _median_ms(port: int, path: str) -> float:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    times = []
    for _ in range(6):
        began = time.perf_counter()
        connection.request("GET", path)
        response = connection.getresponse()
        response.read()
        times.append((time.perf_counter() - began) * 1e3)
        if response.status != 200:
            raise RuntimeError(f"{path} answered {response.status}")
    connection.close()
    return sorted(times[1:])[2]  # the first one loads what it needs


def _log(folder: Path) -> tuple[float, float]:
    """Return the CPU microseconds of one ``log()`` on the caller's thread, and of the whole process, server away."""
    logger = ConversationLogger("http://127.0.0.1:9", spill_directory=folder / "spill", handle_sigterm=False)
    logger.log("warm", "up", 0.9)
    logger.sync()
    thread_ns, process_ns = time.thread_time_ns(), time.process_time_ns()
    for number in range(N_LOGS):
        logger.log(f"track my order {number}", "track_order", 0.95, phone_number="+919876543210", current_step="menu")
        if number % 1000 == 999:
            logger.sync()
    thread_ns, process_ns = time.thread_time_ns() - thread_ns, time.process_time_ns() - process_ns
    logger.close()
    return thread_ns / N_LOGS / 1e3, process_ns / N_LOGS / 1e3


def _report(  # what the page shows
    n: int, steps: list[Step], looks: list[tuple[str, float]], size_mb: float, caller: float, worker: float
) -> None:
    print("## Collecting training data\n")
    print(
        f"{n:,} messages of one tenant over HTTP, {DELIVERY:,} a delivery, one delivery at a time, each committed with "
        "its counts, labels and search words before its answer. The figures of each tenth; memory is the learner's, "
        f"resident. The database is {size_mb:,.0f} MB then.\n"
    )
    rows = [[f"{s.n:,}", f"{s.per_s:,.0f}", f"{s.cpu_us:,.0f}", f"{s.memory_mb:,.0f}"] for s in steps]
    print(table(["messages", "messages/s", "CPU us each", "MB"], rows))
    print(table([f"looking at {n:,}", "ms"], [[what, f"{ms:,.1f}"] for what, ms in looks]))
    print(
        f"The client: {caller:.1f} us of CPU on the caller's thread for one log(), {worker:.1f} us in the whole "
        "process with the message written to disk, the server away.\n"
    )
    worst = max(ms for _, ms in looks)
    steady = steps[-1].per_s / steps[0].per_s
    grown = steps[-1].memory_mb / steps[len(steps) // 2].memory_mb  # by then all that loads once is loaded
    print_bar(at_least("ingest: rate of the last tenth over the first", f"{STEADY}", STEADY, [steady]))
    print_bar(at_most("ingest: memory at the end over that at the half", "1.1", 1.1, [grown]))
    print_bar(at_most(f"looking at {n:,} examples, the slowest way", f"{LISTED_MS:.0f} ms", LISTED_MS, [worst]))
    print_bar(at_most("log(), CPU on the caller's thread", f"{LOG_US:.0f} us", LOG_US, [caller]))


if __name__ == "__main__":
    main()
