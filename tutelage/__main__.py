"""Where ``tutelage`` and ``python -m tutelage`` begin."""

import signal

from tutelage.dispatch import load


def main() -> None:
    """Run the command."""
    # Before a command runs there is nothing to tidy up: Ctrl-C ends it there and then, without a traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    load("tutelage.cli:main")()


if __name__ == "__main__":
    main()
