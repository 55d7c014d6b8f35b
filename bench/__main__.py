"""``python -m bench [PART|all]``: every benchmark; none of them is a test. Parts: see ``PARTS``.

``--quick`` measures shortly and prints only; otherwise RESULTS.md is written, with what other parts found before.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from bench import cache_cost, gateway, memory, start, workers
from bench.bars import BAR_PREFIX, Bar, Part, load_parts, save_parts
from bench.machine import machine
from bench.report import RESULTS, page
from tutelage.__main__ import ONE_BLAS_THREAD

ROUNDS, SECONDS = 3, 2.0
QUICK_ROUNDS, QUICK_SECONDS = 1, 0.7


@dataclass(frozen=True)
class Options:
    """What was asked for on the command line."""

    is_quick: bool
    rounds: int
    data: str | None
    simworld: str | None
    minutes: float | None
    teacher: str | None
    teacher_model: str | None


def _gateway(options: Options) -> Part:
    return gateway.run(*((QUICK_SECONDS, QUICK_ROUNDS) if options.is_quick else (SECONDS, options.rounds)))


def _printed(name: str, title: str, *arguments: str, part: str | None = None) -> Part:
    """Return what ``bench.NAME`` prints, its bars (``bars.print_bar``) taken out.

    A process of its own: its BLAS threads are set by the environment before numpy is loaded, as the proxy's are.

    Raises:
        CalledProcessError: it did not run to its end.
    """
    command = [sys.executable, "-m", f"bench.{name}", *arguments]
    environment = {**os.environ, **ONE_BLAS_THREAD}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    lines = done.stdout.strip().splitlines()
    bars = [Bar(**json.loads(line.removeprefix(BAR_PREFIX))) for line in lines if line.startswith(BAR_PREFIX)]
    text = "\n".join(line for line in lines if not line.startswith(BAR_PREFIX)).strip()
    # A page comes with a heading of its own; what is only lined up by blanks stays so inside a block of code.
    shown = text.partition("\n")[2].strip() if text.startswith("## ") else f"```\n{text}\n```"
    return Part(part or name, title, f"{shown}\n\nMachine: {machine()}.\n", bars)


def _selection(options: Options) -> Part:
    chosen = ["--data", options.data] if options.data else []
    return _printed("selection", "Selection plus retrieval inside a request", *chosen)


def _retrieval(options: Options) -> Part:
    chosen = [*(["--seeds", "1"] if options.is_quick else []), *(["--data", options.data] if options.data else [])]
    return _printed("retrieval", "How well entries are found", *chosen)


def _refits(options: Options) -> Part:
    chosen = [*(["--seeds", "1"] if options.is_quick else []), *(["--data", options.data] if options.data else [])]
    return _printed("refits", "What refits of the local vectors gain", *chosen)


def _teacher(options: Options) -> Part:
    chosen = [
        *("--url", options.teacher or ""),
        *(["--model", options.teacher_model] if options.teacher_model else []),
        *(["--quick"] if options.is_quick else []),
        *(["--data", options.data] if options.data else []),
    ]
    return _printed("teacher", "What refits to a real model gain", *chosen)


def _knowledge(options: Options) -> Part:
    chosen = [*(["--quick"] if options.is_quick else []), *(["--data", options.data] if options.data else [])]
    return _printed("knowledge", "Knowledge: from conversations to entries that are found", *chosen)


def _nlu(options: Options) -> Part:
    chosen = [*(["--quick"] if options.is_quick else []), *(["--data", options.data] if options.data else [])]
    return _printed("nlu", "The classifier of question types", *chosen)


def _crash(options: Options) -> Part:
    return _printed("crash", "The crash alarm", *(["--quick"] if options.is_quick else []))


def _runs(options: Options) -> Part:
    return _printed("runs", "What a pattern run costs", *(["--quick"] if options.is_quick else []))


def _ingest(options: Options) -> Part:
    return _printed("ingest", "Collecting training data", *(["--quick"] if options.is_quick else []))


def _pages(options: Options) -> Part:
    return _printed("pages", "Pages of the console over a large store", *(["--quick"] if options.is_quick else []))


def _simulation(options: Options) -> Part:
    chosen = [
        *(["--quick"] if options.is_quick else []),
        *(["--simworld", options.simworld] if options.simworld else []),
        *(["--minutes", str(options.minutes)] if options.minutes else []),
    ]
    return _printed("simulation", "The learner in a simulated world", *chosen, part="simworld")


PARTS: Mapping[str, Callable[[Options], Part]] = {
    "gateway": _gateway,
    "cache": lambda _: cache_cost.run(),
    "memory": lambda options: memory.run(is_quick=options.is_quick),
    "start": lambda options: start.run(is_quick=options.is_quick),
    "workers": lambda options: workers.run(is_quick=options.is_quick),
    "selection": _selection,
    "retrieval": _retrieval,
    "refits": _refits,
    "teacher": _teacher,
    "knowledge": _knowledge,
    "nlu": _nlu,
    "crash": _crash,
    "simworld": _simulation,
    "budget": lambda _: _printed("budget", "The choice within the budget against the best one"),
    "runs": _runs,
    "ingest": _ingest,
    "pages": _pages,
}


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("part", nargs="?", choices=(*PARTS, "all"), default="all")
    parser.add_argument("--quick", action="store_true", help="a short run; prints and writes nothing")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="of the gateway's cells")
    parser.add_argument("--data", help="folder with the data sets, for retrieval, knowledge and nlu")
    parser.add_argument("--simworld", help="folder with the simulated world, for the learner")
    parser.add_argument("--minutes", type=float, help="after which no simulated world begins any more")
    parser.add_argument("--teacher", help="base URL of an embedding server, for teacher: see bench/minilm_server.py")
    parser.add_argument("--teacher-model", help="that it is asked for")
    arguments = parser.parse_args()
    if arguments.part == "teacher" and not arguments.teacher:
        parser.error("teacher needs an embedding server: --teacher URL")
    options = Options(
        arguments.quick,
        arguments.rounds,
        arguments.data,
        arguments.simworld,
        arguments.minutes,
        arguments.teacher,
        arguments.teacher_model,
    )
    failed = []
    for name, measure in PARTS.items():
        if arguments.part not in (name, "all") or (name == "teacher" and not arguments.teacher):
            continue  # without a teacher, what one taught before stays on the page
        try:
            part = measure(options)
        except subprocess.CalledProcessError as exc:
            print(f"{name} was not measured: {exc}", file=sys.stderr)
            failed.append(name)
            continue
        if arguments.quick:
            print(f"A short run: rough figures, and caches still fill.\n\n{page({name: part})}")
        else:
            parts = {**load_parts(), name: part}
            save_parts(parts)
            RESULTS.write_text(page(parts), encoding="utf-8")
    if not arguments.quick:
        print(page(load_parts()))
    if failed:
        sys.exit(f"not measured: {', '.join(failed)}")


if __name__ == "__main__":
    main()
