"""Keeps what entries are found by up to date: vectors of the configured remote model, and each tenant's threshold.

A thread of its own looks every few seconds. What is left to do is what the tables lack, so a stop at any moment costs
no more than the batch in work; until an entry has the new vector, it is found by its local one.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import numpy as np

from learner.embedding_server import RefusedError
from learner.errors import ModelError
from learner.knowledge.calibration import MAX_PHRASINGS, MIN_ENTRIES, find_threshold, owners_of, read_unrelated
from learner.watch import Watch
from store import context_vectors
from store.clock import Clock
from store.config import Config
from store.context_vectors import EmbeddingState, ServedWording
from store.database import Database
from store.embedding import Embedder, LocalEmbedder, RefittedEmbedder, Vector, entry_embedding, normalised
from store.generations import current_number, publish
from store.prices import PriceBook
from store.refits import has_refits, kept_models, load_refit, served_refit_name
from store.remote_embedding import Embedded
from store.snapshot import load_snapshot
from store.tenants import list_tenants

REST_S: Final = 60.0  # after a failure of the embedding server; doubles with each further one ...
MAX_REST_S: Final = 900.0  # ... up to this
MANY_CHANGED: Final = 0.05  # of a tenant's entries, after which its threshold is found anew
SMALLEST_CHANGE: Final = 0.005  # of a threshold, that is worth a generation
MAX_DROPPED: Final = 10_000  # vectors of other models deleted at a time
PROVIDER: Final = "openai"  # whose prices are looked up

log = logging.getLogger(__name__)


class Server(Protocol):
    """The embedding server; ``learner.embedding_server`` has the real one."""

    @property
    def name(self) -> str: ...

    def embed(self, texts: Sequence[str]) -> Embedded:
        """Return the vectors of *texts*; raises RefusedError, ModelError."""
        ...

    def stop(self) -> None: ...


class Indexer:
    """Does what is left to do, tenant by tenant, again and again between ``start`` and ``stop``.

    Args:
        config: all settings.
        open_database: a connection of the thread's own.
        clock: the machine's.
        embedder: returns the local embedder, which is loaded when it is first needed.
        server: the embedding server; None for the local model alone.
        prices: of its tokens.
    """

    def __init__(
        self,
        config: Config,
        *,
        open_database: Callable[[], Database],
        clock: Clock,
        embedder: Callable[[], LocalEmbedder],
        server: Server | None,
        prices: PriceBook,
    ) -> None:
        self._config = config
        self._clock = clock
        self._embedder = embedder
        self._server = server
        self._prices = prices
        self._rest_until_s = 0.0
        self._rest_s = REST_S
        self._done: dict[str, int] = {}  # tenant -> the generation that was looked at; nothing is due without another
        self._refused: set[tuple[str, int]] = set()
        self._over_budget: set[str] = set()
        self._everyday = read_unrelated()
        self._unrelated: Vector | None = None  # their vectors of the server's model
        self._watch = Watch(
            "indexer",
            self.look,
            open_database=open_database,
            poll_s=config.learner.poll_s,
            problem="vectors and thresholds could not be looked after",
            interrupt=None if server is None else server.stop,
        )

    def start(self) -> None:
        """Begin in a thread."""
        self._watch.start()

    def stop(self) -> None:
        """Let no other look begin, and wait a little for the one under way."""
        self._watch.stop()

    def look(self, db: Database) -> None:
        """Make the vectors that are missing and find the thresholds that are due, of every tenant that learns."""
        for tenant in list_tenants(db):
            if self._watch.is_over():
                return
            generation = current_number(db, tenant.id)
            if not tenant.learning or self._done.get(tenant.id) == generation:
                continue
            try:
                self._make_refit_vectors(db, tenant.id)
                if self._server is not None:
                    self._make_vectors(db, tenant.id, self._server)
                self._drop_vectors(db, tenant.id)
                self._calibrate(db, tenant.id)
            except ModelError as exc:
                self._rest(exc)
            if self._server is None or self._may_ask:
                self._done[tenant.id] = generation  # what was published since is looked at once more

    def _rest(self, problem: ModelError) -> None:
        self._rest_until_s = self._clock.now_s() + self._rest_s
        log.warning("%s; asked again in %.0f s", problem, self._rest_s)
        self._rest_s = min(2 * self._rest_s, MAX_REST_S)

    @property
    def _may_ask(self) -> bool:
        return self._clock.now_s() >= self._rest_until_s and not self._watch.is_over()

    # Vectors

    def _make_vectors(self, db: Database, tenant_id: str, server: Server) -> None:
        """Make vectors batch by batch until none is missing; each batch is committed by itself."""
        n_made, after = 0, ""
        try:
            while self._may_ask and self._is_within_budget(db, tenant_id, server.name):
                batch = context_vectors.wordings_without(
                    db, tenant_id, server.name, after=after, limit=self._config.embedding.batch_size
                )
                if not batch:
                    break
                after = batch[-1].context_id
                n_made += self._make_batch(db, tenant_id, server, batch)
        finally:
            if n_made:
                reason = f"embedding: {n_made} entries have vectors of {server.name}"
                publish(db, tenant_id, plan=None, actor="learner", reason=reason, now_s=self._clock.now_s())
                log.info("tenant %s: %s", tenant_id, reason)

    def _make_refit_vectors(self, db: Database, tenant_id: str) -> None:
        """Make the vectors that the tenant's refit lacks; on this machine, so a batch costs milliseconds."""
        name = served_refit_name(db, tenant_id, self._embedder().name) if has_refits(db, tenant_id) else None
        refitted = self._refitted(db, tenant_id, name) if name is not None else None
        if refitted is None:
            return
        n_made, after = 0, ""
        while not self._watch.is_over():
            batch = context_vectors.wordings_without(
                db, tenant_id, refitted.name, after=after, limit=self._config.embedding.batch_size
            )
            if not batch:
                break
            after = batch[-1].context_id
            made = [(wording, entry_embedding(refitted, wording.questions)) for wording in batch]
            n_made += context_vectors.put_vectors(db, tenant_id, refitted.name, made)
        if n_made:
            reason = f"embedding: {n_made} entries have vectors of {refitted.name}"
            publish(db, tenant_id, plan=None, actor="learner", reason=reason, now_s=self._clock.now_s())
            log.info("tenant %s: %s", tenant_id, reason)

    def _refitted(self, db: Database, tenant_id: str, model: str) -> RefittedEmbedder | None:
        """Return what makes vectors of *model*; None when it is no refit that is served."""
        embedder = self._embedder()
        table = load_refit(db, tenant_id, embedder.name)
        return RefittedEmbedder(embedder, table) if table is not None and table.name == model else None

    def _drop_vectors(self, db: Database, tenant_id: str) -> None:
        """Delete vectors that nobody will ask for; those of another server once this one's are made."""
        if self._server is not None and not self._may_ask:
            return
        kept = [*kept_models(db, tenant_id), *([] if self._remote_name is None else [self._remote_name])]
        context_vectors.drop_other_vectors(db, tenant_id, kept, refits_only=self._server is None, at_most=MAX_DROPPED)

    def _make_batch(self, db: Database, tenant_id: str, server: Server, batch: Sequence[ServedWording]) -> int:
        asked = [
            wording
            for wording in batch
            if (wording.context_id, wording.revision) not in self._refused and any(map(str.strip, wording.questions))
        ]
        if not asked:
            return 0
        phrasings = [[question for question in wording.questions if question.strip()] for wording in asked]
        try:
            embedded = server.embed([question for questions in phrasings for question in questions])
        except RefusedError as exc:
            if len(asked) == 1:
                self._refused.add((asked[0].context_id, asked[0].revision))
                log.warning("entry %s keeps its local vector alone: %s", asked[0].context_id, exc)
                return 0
            # Which one of them it is shows when they are asked one by one.
            return sum(self._make_batch(db, tenant_id, server, [wording]) for wording in asked if self._may_ask)
        self._rest_s = REST_S
        owners = owners_of([len(questions) for questions in phrasings])
        made = [
            (wording, normalised(np.add.reduce(embedded.vectors[owners == row], axis=0)))
            for row, wording in enumerate(asked)
        ]
        with db.transaction():
            n_written = context_vectors.put_vectors(db, tenant_id, server.name, made)
            self._add_cost(db, tenant_id, server.name, embedded.prompt_tokens)
        return n_written

    def _add_cost(self, db: Database, tenant_id: str, model: str, prompt_tokens: int) -> None:
        context_vectors.add_cost(
            db,
            tenant_id,
            model,
            prompt_tokens=prompt_tokens,
            cost_usd=self._prices.cost_usd(self._config.embedding.model, PROVIDER, prompt_tokens, 0, 0),
            now_s=self._clock.now_s(),
        )

    def _is_within_budget(self, db: Database, tenant_id: str, model: str) -> bool:
        is_within = context_vectors.embedding_state(db, tenant_id, model).cost_usd < self._config.embedding.max_cost_usd
        if not is_within and tenant_id not in self._over_budget:
            self._over_budget.add(tenant_id)
            log.warning("tenant %s: no more vectors of %s ([embedding] max_cost_usd)", tenant_id, model)
        return is_within

    # Thresholds

    def _calibrate(self, db: Database, tenant_id: str) -> None:
        """Find the thresholds that are due; each is published with a generation of its own."""
        counts = context_vectors.count_vectors(db, tenant_id)
        for model, n_entries in counts.items():
            if model == self._remote_name and not self._may_ask:
                continue
            state = context_vectors.embedding_state(db, tenant_id, model)
            section = self._config.contexts
            settings = f"{section.max_unrelated:g}/{section.least_similarity:g}"
            is_due = state.calibrated_on != settings or abs(n_entries - state.n_entries) > MANY_CHANGED * n_entries
            if not is_due:
                continue
            embedder = self._maker_of(db, tenant_id, model)
            if embedder is not None or model == self._remote_name:
                threshold = self._threshold(db, tenant_id, model, embedder)
                self._publish(db, tenant_id, model, threshold, state, settings, n_entries)

    @property
    def _remote_name(self) -> str | None:
        return self._server.name if self._server is not None else None

    def _maker_of(self, db: Database, tenant_id: str, model: str) -> Embedder | None:
        """Return what makes vectors of *model* on this machine; None: a server, or nothing any more."""
        embedder = self._embedder()
        return embedder if model == embedder.name else self._refitted(db, tenant_id, model)

    def _threshold(self, db: Database, tenant_id: str, model: str, embedder: Embedder | None) -> float | None:
        """Return the tenant's own threshold for *model*; None where the configured one holds.

        *embedder* makes its vectors; None: the server does.
        """
        section = self._config.contexts
        if not section.max_unrelated:
            return None
        local = self._embedder().name
        snapshot = load_snapshot(db, tenant_id, embedding_model=local, remote_model=self._remote_name)
        served = {
            local: snapshot.contexts,
            self._remote_name: snapshot.remote_contexts,
        }.get(model, snapshot.refit_contexts)
        if served is None or len(served) < MIN_ENTRIES:
            return None
        entries, phrasings = served.vectors, served.vectors
        owners = np.arange(len(entries))
        if embedder is not None:  # an entry's own phrasings tell more than its mean; the server's would cost
            texts = {
                wording.context_id: wording.questions for wording in context_vectors.served_wordings(db, tenant_id)
            }
            chosen = np.unique(np.linspace(0, len(entries) - 1, min(len(entries), MAX_PHRASINGS)).astype(np.int64))
            questions = [texts[served.rows.ids[row]] for row in chosen.tolist()]
            phrasings = embedder.embed([question for asked in questions for question in asked])
            owners = chosen[owners_of([len(asked) for asked in questions])]
        return find_threshold(
            entries,
            phrasings,
            owners,
            self._unrelated_vectors(db, tenant_id, model, embedder),
            share=section.max_unrelated,
            least=section.least_similarity,
        )

    def _unrelated_vectors(self, db: Database, tenant_id: str, model: str, embedder: Embedder | None) -> Vector:
        """Return the vectors of the everyday questions; a server is asked once while this process lives."""
        if embedder is not None:
            return embedder.embed(self._everyday)
        assert self._server is not None  # or nothing makes vectors of this model
        if self._unrelated is None:
            embedded = self._server.embed(self._everyday)
            self._add_cost(db, tenant_id, model, embedded.prompt_tokens)
            self._unrelated = embedded.vectors
        return self._unrelated

    def _publish(  # noqa: PLR0917
        self,
        db: Database,
        tenant_id: str,
        model: str,
        threshold: float | None,
        state: EmbeddingState,
        settings: str,
        n_entries: int,
    ) -> None:
        now_s = self._clock.now_s()
        is_alike = threshold == state.threshold or (
            threshold is not None and state.threshold is not None and abs(threshold - state.threshold) < SMALLEST_CHANGE
        )
        with db.transaction():
            context_vectors.set_threshold(
                db,
                tenant_id,
                model,
                threshold=state.threshold if is_alike else threshold,
                calibrated_on=settings,
                n_entries=n_entries,
                now_s=now_s,
            )
            if not is_alike:
                said = "the configured one" if threshold is None else f"{threshold:.3f}"
                reason = f"similarity threshold of {model}: {said}, on {n_entries} entries"
                publish(db, tenant_id, plan=None, actor="learner", reason=reason, now_s=now_s)
                log.info("tenant %s: %s", tenant_id, reason)
