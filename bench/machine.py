"""The machine and the versions that figures were measured with."""

import os
import platform
import shutil
import subprocess
import time
from importlib.metadata import version
from pathlib import Path

PACKAGES = ("uvicorn", "uvloop", "httptools", "msgspec", "numpy", "starlette")


def machine() -> str:
    """Return cores, kernel, load, day and versions in one line."""
    cpu_info = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = (line.partition(":")[2].strip() for line in cpu_info if line.startswith("model name"))
    parts = [f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in PACKAGES)]
    nginx = shutil.which("nginx")
    if nginx:
        shown = subprocess.run([nginx, "-v"], capture_output=True, text=True, check=True).stderr
        parts.append(shown.strip().removeprefix("nginx version: "))
    return (
        f"{os.cpu_count()} cores of {next(names, platform.machine())}, Linux {platform.release().split('-')[0]}, "
        f"load {os.getloadavg()[0]:.1f} at the end, {time.strftime('%Y-%m-%d')}; {', '.join(parts)}"
    )
