"""``python -m bench [gateway|retrieval|all]``: every benchmark; none of them is a test."""

import argparse
import subprocess
import sys

from bench import gateway


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("part", nargs="?", choices=("gateway", "retrieval", "all"), default="all")
    parser.add_argument("--seconds", type=float, default=2.0, help="of one measurement")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    if arguments.part in ("gateway", "all"):
        gateway.run(arguments.seconds, arguments.rounds)
    if arguments.part in ("retrieval", "all"):
        # A process of its own: its BLAS threads are set by the environment before numpy is loaded.
        sys.exit(subprocess.run([sys.executable, "-m", "bench.retrieval"], check=False).returncode)


if __name__ == "__main__":
    main()
