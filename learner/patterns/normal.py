"""The normal distribution: numpy has no error function."""

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_SQRT2: Final = math.sqrt(2)
_erfc = np.frompyfunc(math.erfc, 1, 1)


def cdf(x: Floats | float) -> Floats:
    """Return P(Z <= x) of a standard normal Z, exact to the last digits also far in the tails.

    >>> cdf(0.0).item()
    0.5
    """
    return np.asarray(0.5 * _erfc(-np.asarray(x, np.float64) / _SQRT2), np.float64)


def density(x: Floats) -> Floats:
    """Return the standard normal density at *x*."""
    return np.asarray(np.exp(-0.5 * x * x) / math.sqrt(2 * math.pi), np.float64)
