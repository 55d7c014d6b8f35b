"""``python -m bench [PART|all]``: every benchmark; none of them is a test. Parts: see ``PARTS``.

``--quick`` measures shortly and prints only; otherwise RESULTS.md is written, with what other parts found before.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Mapping

from bench import cache_cost, gateway, memory, start, workers
from bench.bars import BAR_PREFIX, Bar, Part, load_parts, save_parts
from bench.machine import machine
from bench.report import RESULTS, page

ROUNDS, SECONDS = 3, 2.0
QUICK_ROUNDS, QUICK_SECONDS = 1, 0.7


def _gateway(is_quick: bool) -> Part:
    return gateway.run(*((QUICK_SECONDS, QUICK_ROUNDS) if is_quick else (SECONDS, ROUNDS)))


def _retrieval(is_quick: bool) -> Part:
    # A process of its own: its BLAS threads are set by the environment before numpy is loaded.
    command = [sys.executable, "-m", "bench.retrieval", *(["--seeds", "1"] if is_quick else [])]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    lines = done.stdout.strip().splitlines()
    bars = [Bar(**json.loads(line.removeprefix(BAR_PREFIX))) for line in lines if line.startswith(BAR_PREFIX)]
    text = "\n".join(line for line in lines if not line.startswith(BAR_PREFIX)).strip()
    return Part("retrieval", "Retrieval", f"```\n{text}\n```\n\nMachine: {machine()}.\n", bars)


PARTS: Mapping[str, Callable[[bool], Part]] = {
    "gateway": _gateway,
    "cache": lambda _: cache_cost.run(),
    "memory": lambda is_quick: memory.run(is_quick=is_quick),
    "start": lambda is_quick: start.run(is_quick=is_quick),
    "workers": lambda is_quick: workers.run(is_quick=is_quick),
    "retrieval": _retrieval,
}


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("part", nargs="?", choices=(*PARTS, "all"), default="all")
    parser.add_argument("--quick", action="store_true", help="a short run; prints and writes nothing")
    arguments = parser.parse_args()
    parts = load_parts()
    for name, measure in PARTS.items():
        if arguments.part in (name, "all"):
            parts[name] = measure(arguments.quick)
            if arguments.quick:
                print(f"A short run: rough figures, and caches still fill.\n\n{page({name: parts[name]})}")
            else:
                save_parts(parts)
                RESULTS.write_text(page(parts), encoding="utf-8")
    if not arguments.quick:
        print(page(parts))


if __name__ == "__main__":
    main()
