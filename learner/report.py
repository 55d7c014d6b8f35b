"""What a run tells whoever started it, and what it works with."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from learner.models import Models, Usage
from store.clock import Clock, SystemClock
from store.embedding import LocalEmbedder
from store.runs import RunKind
from store.tokens import TokenCounter


@dataclass(frozen=True, slots=True)
class Collaborators:
    """What a run needs beside the database; ``clock`` tells the machine's time, not the run's."""

    embedder: LocalEmbedder
    tokens: TokenCounter
    models: Models
    rng: np.random.Generator
    clock: Clock = field(default_factory=SystemClock)


@dataclass(frozen=True, slots=True)
class RunReport:
    """One finished run: what it read, what it changed, in words, and what it cost."""

    kind: RunKind
    run_id: str
    generation: int | None  # published by it; None when what is served stayed the same
    counts: Mapping[str, int]
    changes: tuple[str, ...]
    costs: Usage
