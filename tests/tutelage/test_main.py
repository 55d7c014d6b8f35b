"""What every command is started with."""

import os
import subprocess
import sys

import pytest

COMMAND_THEN_COUNT = """
import contextlib
import os
import sys

from tutelage.__main__ import main

assert "numpy" not in sys.modules  # it reads the setting when it is loaded, never again
sys.argv = ["tutelage", "--version"]
with contextlib.suppress(SystemExit):
    main()
import numpy as np

matrix = np.ones((1500, 1500), np.float32)
matrix @ matrix
print("threads:", len(os.listdir("/proc/self/task")))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="threads are counted in /proc")
def test_a_command_computes_with_one_blas_thread_whatever_the_shell_says() -> None:
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "4", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", COMMAND_THEN_COUNT],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "threads: 1"
