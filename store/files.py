"""Files that hold what users wrote or a tenant's secret: for the account that runs Tutelage, for nobody else."""

import os
from pathlib import Path


def open_private(path: str | Path, flags: int) -> int:
    """Return a descriptor of *path*; a file that is made by this gets mode 0600. Fits ``open(opener=...)``.

    Raises:
        OSError: as ``os.open``.
    """
    return os.open(path, flags, 0o600)
