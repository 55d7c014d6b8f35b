"""Finds the simulated world, which is no part of this project."""

import importlib
import sys
from pathlib import Path
from types import ModuleType

DEFAULT_FOLDER = Path(__file__).parents[3] / "shared" / "simworld"


class Simworld:
    """The modules of the simulated world in one folder.

    Raises:
        FileNotFoundError: the folder does not hold it.
    """

    def __init__(self, folder: Path) -> None:
        if not (folder / "simworld" / "world.py").exists():
            raise FileNotFoundError(f"no simulated world in {folder}")
        if str(folder) not in sys.path:
            sys.path.append(str(folder))
        self.world: ModuleType = importlib.import_module("simworld.world")
        self.experiments: ModuleType = importlib.import_module("simworld.experiments")
