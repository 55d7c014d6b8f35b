"""Sums that grow with the model: arrays of zeros whose axes get longer when new strata, columns or users are met."""

from collections.abc import Mapping
from typing import ClassVar, Self

import numpy as np

from learner.patterns.normal import Floats

Shape = tuple[str | int, ...]
Sizes = Mapping[str, int]


class Sums:
    """Arrays by name; an axis is a length or the name of a growing one."""

    AXES: ClassVar[Mapping[str, Shape]] = {}

    def __init__(self, sizes: Sizes) -> None:
        for name in self.AXES:
            setattr(self, name, np.zeros(self._lengths(name, sizes)))

    @classmethod
    def _lengths(cls, name: str, sizes: Sizes) -> tuple[int, ...]:
        return tuple(axis if isinstance(axis, int) else sizes[axis] for axis in cls.AXES[name])

    def grow(self, sizes: Sizes) -> None:
        """Make every array as long as *sizes* says; what is new is 0."""
        for name, old in self.arrays().items():
            lengths = self._lengths(name, sizes)
            if old.shape != lengths:
                new = np.zeros(lengths)
                new[tuple(slice(0, length) for length in old.shape)] = old
                setattr(self, name, new)

    def arrays(self) -> dict[str, Floats]:
        """Return the arrays themselves, by name."""
        return {name: getattr(self, name) for name in self.AXES}

    def restore(self, arrays: Mapping[str, Floats]) -> None:
        """Replace the arrays by copies of *arrays*.

        Raises:
            ValueError: a name is missing, or an array has another number of axes.
        """
        for name, shape in self.AXES.items():
            if name not in arrays or arrays[name].ndim != len(shape):
                raise ValueError(f"the saved sums have no {name!r} of {len(shape)} axes")
            setattr(self, name, arrays[name].copy())

    def check(self, sizes: Sizes) -> None:
        """Raise ValueError unless every array is as long as *sizes* says."""
        for name, values in self.arrays().items():
            if values.shape != self._lengths(name, sizes):
                raise ValueError(f"the saved {name!r} is {values.shape}, not {self._lengths(name, sizes)}")

    def copy(self) -> Self:
        """Return sums of the same values that share no memory with these."""
        twin = object.__new__(type(self))
        twin.restore(self.arrays())
        return twin
