"""Turns in which the assistant called tools: several replies, one answer.

What a turn used belongs to all of it. A reply that goes on from the results of an earlier reply's calls takes over what
that one had used so far, and the earlier one is from then on a *step*: no response of its own for votes, follow-ups or
rates, for the user saw one answer. A reply that called tools and that nobody went on from stands for itself: in many
apps the call is the answer.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from learner.patterns.characteristics import Values

OF_THE_TURN: Final = ("tools", "query", "visualization")  # dimensions that a call shows as well as the answer's text
MAX_OPEN: Final = 20_000  # calls that are remembered while they wait for their results, about 10 MB


@dataclass(frozen=True, slots=True)
class Step:
    """A reply whose calls may have been answered."""

    seq: int
    created_s: float
    values: Values  # of the turn up to it


def with_earlier(values: Values, step: Step) -> dict[str, tuple[str, ...]]:
    """Return *values* of a reply together with what its turn had used before.

    >>> with_earlier({"tools": (), "length": ("short",)}, Step(1, 0.0, {"tools": ("search",), "length": ("long",)}))
    {'tools': ('search',), 'length': ('short',)}
    """
    earlier = {name: step.values[name] for name in OF_THE_TURN if name in step.values}
    both = {name: tuple(dict.fromkeys([*used, *values.get(name, ())])) for name, used in earlier.items()}
    return {**values, **both}


class OpenSteps:
    """The latest steps by the ids of their calls, as many as ``MAX_OPEN``."""

    def __init__(self) -> None:
        self._by_call: OrderedDict[tuple[str, str], Step] = OrderedDict()

    def put(self, conversation_id: str, call_ids: Sequence[str], step: Step) -> None:
        """Remember that the calls *call_ids* of *step* wait for results."""
        for call_id in call_ids:
            self._by_call[conversation_id, call_id] = step
            self._by_call.move_to_end((conversation_id, call_id))
        while len(self._by_call) > MAX_OPEN:
            self._by_call.popitem(last=False)

    def find(self, conversation_id: str, call_ids: Sequence[str]) -> Step | None:
        """Return the newest step that made one of the calls *call_ids*, or None."""
        steps = [self._by_call[key] for call_id in call_ids if (key := (conversation_id, call_id)) in self._by_call]
        return max(steps, key=lambda step: step.seq, default=None)


def ends(steps: Sequence[tuple[int, int]]) -> Mapping[int, int]:
    """Return the answer of each step, given what went on from what, in order of arrival.

    >>> dict(ends([(1, 2), (2, 3)]))
    {2: 3, 1: 3}
    """
    found: dict[int, int] = {}
    for step, next_ in reversed(steps):
        found.setdefault(step, found.get(next_, next_))
    return found
