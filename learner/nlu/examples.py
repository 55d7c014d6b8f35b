"""Which examples a training learns from, and which of them only judge it."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from learner.nlu.regression import Labels
from store.config import NluSection
from store.datasets import LabelledText


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """Distinct texts with their intents, in an order that depends on the texts alone."""

    texts: tuple[str, ...]
    intents: tuple[str, ...]  # sorted
    labels: Labels  # (m,), indices of intents
    importance: NDArray[np.float32]  # (m,)
    is_held_out: NDArray[np.bool_]  # (m,)
    left_out: Mapping[str, int]  # intents with too few texts -> how many

    def __len__(self) -> int:
        return len(self.texts)


def choose(examples: Iterable[LabelledText], section: NluSection) -> TrainingSet:
    """Return what is trained on.

    The same text counts once: with the intent that a person gave it last, else with what channels said most often.
    Intents with fewer than ``min_examples`` texts are left out. A text is held out by its hash, so that it is judged
    by in each training and the next model is compared with the last on texts that neither has seen.
    """
    examples = list(examples)
    spelled = {_evened(example.text): example.text for example in reversed(examples)}
    chosen = _distinct(examples)
    sizes = Counter(intent for intent, _ in chosen.values())
    left_out = {intent: n for intent, n in sorted(sizes.items()) if n < section.min_examples}
    kept = sorted((_position(text), text) for text, (intent, _) in chosen.items() if intent not in left_out)
    texts = tuple(text for _, text in kept)
    intents = tuple(sorted(sizes.keys() - left_out.keys()))
    index = {intent: number for number, intent in enumerate(intents)}
    labels = np.array([index[chosen[text][0]] for text in texts], dtype=np.int64)
    reviewed = np.array([chosen[text][1] for text in texts], dtype=bool)
    return TrainingSet(
        texts=tuple(spelled[text] for text in texts),
        intents=intents,
        labels=labels,
        importance=_importance(labels, reviewed, len(intents), section.reviewed_weight),
        is_held_out=_held_out([position for position, _ in kept], labels, len(intents), section.held_out),
        left_out=left_out,
    )


def _distinct(examples: Iterable[LabelledText]) -> dict[str, tuple[str, bool]]:
    """Return for each text, its blanks and case evened out, the intent and whether a person gave it."""
    reviewed: dict[str, tuple[str, str]] = {}
    counted: dict[str, Counter[str]] = {}
    for example in examples:
        text = _evened(example.text)
        if example.reviewed_at:
            reviewed[text] = max(reviewed.get(text, ("", "")), (example.reviewed_at, example.intent))
        else:
            counted.setdefault(text, Counter())[example.intent] += 1
    by_channels = {
        text: (min(intents, key=lambda intent, n=intents: (-n[intent], intent)), False)  # type: ignore[misc]
        for text, intents in counted.items()
    }
    return by_channels | {text: (intent, True) for text, (_, intent) in reviewed.items()}


def _evened(text: str) -> str:
    return " ".join(text.split()).casefold()


def _position(text: str) -> float:
    """Return where a text lies in [0, 1): the same in every training."""
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def _importance(labels: Labels, reviewed: NDArray[np.bool_], n_intents: int, weight: float) -> NDArray[np.float32]:
    """Return what each text counts, 1 on average: rare intents more, by the root of how rare they are.

    The root, for the full inverse would make one text of a rare intent outweigh a hundred of a common one, and the
    probabilities would be of a world in which all intents are asked equally often.
    """
    if not len(labels):
        return np.zeros(0, dtype=np.float32)
    sizes = np.bincount(labels, minlength=n_intents)
    importance = np.sqrt(sizes.mean() / sizes[labels]) * np.where(reviewed, weight, 1.0)
    scaled: NDArray[np.float32] = (importance / importance.mean()).astype(np.float32)
    return scaled


def _held_out(positions: Sequence[float], labels: Labels, n_intents: int, share: float) -> NDArray[np.bool_]:
    """Return which texts are held out: those that lie lowest, at least one and never all of an intent's."""
    held = np.array(positions) < share
    if share > 0:
        for label in range(n_intents):
            rows = np.flatnonzero(labels == label)
            held[rows[0]] = True
            held[rows[-1]] = False
    return held
