"""Where ``tutelage`` and ``python -m tutelage`` begin."""

import os
import signal

from tutelage.dispatch import load

ONE_BLAS_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def main() -> None:
    """Run the command."""
    # A second BLAS thread waits for the first on a busy machine: 29 ms seen for a 50 us search. Here, because numpy
    # reads this when it is loaded and never again, and sqlite-utils, which every command needs, loads numpy.
    os.environ.update(ONE_BLAS_THREAD)
    # Before a command runs there is nothing to tidy up: Ctrl-C ends it there and then, without a traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    load("tutelage.cli:main")()


if __name__ == "__main__":
    main()
