"""The one place that imports by name: commands start in a tenth of a second, and load what they need when they run.

The proxy, the learner and the embedder bring numpy, uvicorn and their like; ``tutelage --help`` needs none of them.
"""

from importlib import import_module
from typing import Any


def load(target: str) -> Any:
    """Return ``module:attribute``, the module imported now.

    >>> load("math:floor")(1.5)
    1
    """
    module, _, attribute = target.partition(":")
    return getattr(import_module(module), attribute)
