"""Where learning meets a request: what goes upstream, what is recorded, and the one place that fails open."""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Final, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from proxy.conversation import Conversation, ConversationBook, Recent, recalled
from proxy.description import Describer, own_headers
from proxy.dialect import LEARNED, Dialect
from proxy.errors import ApiError, ClientGoneError, Header
from proxy.headers import find
from proxy.incoming import IncomingRequest
from proxy.json_body import model_of
from proxy.metrics import TokenTotals
from proxy.parsed_request import ParsedRequest
from proxy.remote_questions import RemoteQuestions
from proxy.reply import Reply
from proxy.reply_collector import ReplyCollector
from proxy.response_draft import Draft, Ending, record_of
from proxy.retrieval import Look, Lot, select_by_both, select_contexts
from proxy.selection import NOTHING, Facts, Selection, conversation_seed, is_holdout, select_patterns
from proxy.siblings import MAX_HEARD, Siblings, TakenUp, TurnEnded
from proxy.snapshots import ServedTenant, Snapshots
from proxy.stepping import Wakeup
from proxy.upstream import Cancellation
from proxy.waiting import wait
from store.clock import Clock
from store.config import Config
from store.embedding import clipped
from store.ids import new_id
from store.records import InjectionRecord, InjectionSet, encode_record, make_set
from store.refit_table import RefitTable
from store.segments import SegmentWriter
from store.vocabulary import UNKNOWN_QUESTION_TYPE, Outcome

NEVER: Final = -1  # of a generation: nothing was chosen yet
MAX_TOOLS: Final = 100  # offered ones whose names are kept for each conversation ...
MAX_TOOL_CHARS: Final = 64  # ... and what of the names: no pattern speaks of a longer one
UNLOADED: Final = -2  # there was nothing to choose from; outside of a tool loop it is tried again

logger = logging.getLogger(__name__)


class Embedder(Protocol):
    """Turns a question into a vector; ``store.embedding`` has the real one."""

    def embed_one(self, text: str) -> NDArray[np.float32]:
        """Return (256,), unit length, or all zero for a text without words."""
        ...

    def embed_refitted(self, text: str, refit: RefitTable) -> NDArray[np.float32]:
        """Return the same of a tenant's own vectors."""
        ...


class Classifier(Protocol):
    """Tells a question's type; ``store.question_types`` and ``store.intent_classifier`` have the real ones."""

    @property
    def least_confidence(self) -> float:
        """Return the confidence under which the type is "unknown", if the configured one is lower."""
        ...

    def classify(self, text: str, embedding: NDArray[np.float32]) -> tuple[str, float]:
        """Return the type and the confidence in it, 0 .. 1."""
        ...


class _Blocks(msgspec.Struct):
    """What a conversation was given last, so that it need not be worked out again while it still holds."""

    seed: bytes
    generation: int = -1
    holdout: bool = False
    patterns: Selection = NOTHING
    question_hash: int | None = None  # not the text, which may be long
    embedding: NDArray[np.float32] | None = None
    refitted: tuple[RefitTable, NDArray[np.float32]] | None = None  # the same of the tenant's own vectors
    question_type: str = ""
    question_type_confidence: float | None = None
    nlu_version: int = 0  # of the classifier that told the type
    contexts_generation: int = NEVER
    contexts: Selection = NOTHING


class _Known(msgspec.Struct, frozen=True):
    """One of the last responses, found by the id in its body or that of one of its items."""

    response_id: str
    conversation: Conversation


class FailOpen:
    """Swallows and logs whatever fails inside learning: the request goes on without it.

    A client's error is none, nor is a client that left.

    The only place on the request path that does.
    """

    def __init__(self, response_id: str, count_failure: Callable[[], None]) -> None:
        self._response_id = response_id
        self._count_failure = count_failure

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, _: TracebackType | None) -> bool:
        if not isinstance(exc, Exception) or isinstance(exc, (ApiError, ClientGoneError)):
            return False
        logger.error("%s: learning failed; the request goes on without it", self._response_id, exc_info=exc)
        self._count_failure()
        return True


class Learning:
    """Begins a turn for every request of a learned endpoint.

    Args:
        config: the whole settings.
        snapshots: what is served now.
        embedder: of questions.
        classifier: of questions.
        writer: takes finished records.
        clock: tells when a reply began and ended.
        count_failure: called once for each failure inside learning.
        count_unloaded: called once for each request that went on without its contexts: they were not loaded in time.
        siblings: the other workers; None when this process serves alone.
        remote: the embedding server; None without one.
    """

    def __init__(
        self,
        config: Config,
        *,
        snapshots: Snapshots,
        embedder: Embedder,
        classifier: Classifier,
        writer: SegmentWriter,
        clock: Clock,
        count_failure: Callable[[], None],
        count_unloaded: Callable[[], None],
        siblings: Siblings | None = None,
        remote: RemoteQuestions | None = None,
    ) -> None:
        self._config = config
        self._remote = remote
        self._siblings = siblings
        self._snapshots = snapshots
        self._embedder = embedder
        self._classifier = classifier
        self._writer = writer
        self._clock = clock
        self._count_failure = count_failure
        self._count_unloaded = count_unloaded
        self._max_chars = int(config.recording.max_message_kb * 1000)
        self._book = ConversationBook(
            size=config.recording.conversation_cache,
            regenerate_window_s=config.recording.regenerate_window_s,
            find_history=snapshots.history.find_history,
            find_conversation=snapshots.history.find_conversation,
            find_reply=self._find_reply,
            tell_taken_up=None if siblings is None else siblings.tell,
        )
        self._describer = Describer()
        self._blocks: Recent[tuple[str, str], _Blocks] = Recent(config.recording.block_cache)
        self._replies: Recent[tuple[str, str], _Known] = Recent(config.recording.response_cache)
        self.tokens = TokenTotals()
        """Of all responses that were recorded."""

    def lacks_contexts(self, tenant_id: str) -> bool:
        """Return whether ``load_contexts`` has something to do before a request of the tenant begins."""
        return self._snapshots.lacks_contexts(tenant_id)

    async def load_contexts(self, headers: Sequence[Header], tenant_id: str, cancellation: Cancellation) -> None:
        """Return once the tenant's contexts are loaded, cannot be, or ``[contexts] load_wait_s`` have passed.

        A request that nothing is learned from, as its *headers* say, neither waits nor has anything loaded.

        Raises:
            ClientGoneError: the client left before.
        """
        if _is_off(own_headers(headers)):
            return
        wakeup = Wakeup()
        wake = partial(asyncio.get_running_loop().call_soon_threadsafe, wakeup.wake)
        if self._snapshots.loader.ask(tenant_id, wake):
            await wait(wakeup, self._config.contexts.load_wait_s, cancellation)

    def lacks_vector(self, tenant_id: str) -> bool:
        """Return whether ``load_vector`` may have something to do before a request of the tenant begins."""
        if self._remote is None:
            return False
        served = self._snapshots.tenant(tenant_id)
        return served is not None and served.remote is not None and self._snapshots.learns(tenant_id)

    async def load_vector(self, request: IncomingRequest, tenant_id: str, cancellation: Cancellation) -> None:
        """Return once the embedding server has told the vector of the question, or will not in time.

        Raises:
            ApiError: 400, the request itself is wrong.
            ClientGoneError: the client left before.
        """
        own = own_headers(request.headers)
        if self._remote is None or _is_off(own):
            return
        with FailOpen(f"a request of tenant {tenant_id}", self._count_failure):
            parsed = _parsed(LEARNED[request.endpoint], request)
            if parsed is not None:
                await self._remote.ask(self._describer.describe(parsed, own, tenant_id).question, cancellation)

    def begin(self, request: IncomingRequest, tenant_id: str) -> "Turn":
        """Return the turn of *request*; whatever fails inside learning, it sends the client's own bytes.

        Raises:
            ApiError: 400, the request itself is wrong.
        """
        dialect = LEARNED[request.endpoint]
        served = self._snapshots.tenant(tenant_id)
        own = own_headers(request.headers)
        turn = Turn(self, request, dialect, self._count_failure)
        # A pure relay knows no bad body: what is wrong in it is the upstream's to say.
        if not _is_off(own) and self._snapshots.learns(tenant_id):
            with turn.fail_open:
                parsed = _parsed(dialect, request)
                if parsed is None:
                    return turn
                turn.draft = draft = self._describe(request, dialect, parsed, own, tenant_id)
                turn.collector = dialect.collector(self._max_chars)
                if served is not None:
                    turn.body = self._inject(draft, served)
        return turn

    def now_s(self) -> float:
        return self._clock.now_s()

    def own_id(self, tenant_id: str, upstream_id: str) -> str | None:
        """Return our id of the tenant's newest response with this id in its body, if it was one of the last."""
        self.hear_siblings()
        known = self._replies.get((tenant_id, upstream_id))
        return known.response_id if known else None

    def hear_siblings(self, limit: int = MAX_HEARD) -> None:
        """Take note of what the other workers have said by now, of at most *limit* messages."""
        if self._siblings is None:
            return
        for said in self._siblings.heard(limit):
            if isinstance(said, TakenUp):
                self._book.hear_taken_up(said)
                continue
            conversation = self._book.hear_end(said)
            self._know_reply(said.tenant_id, said.reply_ids, _Known(said.response_id, conversation))

    def _know_reply(self, tenant_id: str, reply_ids: Sequence[str], known: _Known) -> None:
        for reply_id in reply_ids:
            self._replies.put((tenant_id, reply_id), known)

    def _find_reply(self, tenant_id: str, upstream_id: str) -> Conversation | None:
        known = self._replies.get((tenant_id, upstream_id))
        if known is not None:
            return known.conversation
        facts = self._snapshots.history.find_reply(tenant_id, upstream_id)
        return recalled(facts) if facts else None

    def _describe(
        self, request: IncomingRequest, dialect: Dialect, parsed: ParsedRequest, own: dict[str, str], tenant_id: str
    ) -> Draft:
        facts = self._describer.describe(parsed, own, tenant_id)
        self.hear_siblings()  # the turn before may have ended there just now: their words come before its last byte
        place = self._book.place(parsed, facts.asker, request.received_s)
        question_type = facts.question_type or UNKNOWN_QUESTION_TYPE
        return Draft(
            incoming=request, dialect=dialect, parsed=parsed, facts=facts, place=place, question_type=question_type
        )

    def _inject(self, draft: Draft, served: ServedTenant) -> bytes:
        """Return the body to send, and note in *draft* what went into it."""
        blocks = self._blocks_of(draft, served)
        if not draft.facts.question_type and (draft.facts.question or blocks.question_type):
            self._classify(draft, served, blocks)
        conversation = draft.place.conversation
        is_known = conversation.facts is not None
        if conversation.facts is None:  # fixed for all turns to come, so that their block stays as it is
            facts = draft.facts
            conversation.facts = Facts(draft.question_type, facts.data_source, facts.prompt_template, facts.segment)
        if conversation.facts.tools is None:  # a conversation that the database recalled has lost their names
            conversation.facts = replace(conversation.facts, tools=_known_tools(draft.parsed))
        # The block that stands in a thread stays there, whatever is published, and counts in every turn.
        is_held = draft.parsed.has_held_system and is_known
        if blocks.generation != served.snapshot.generation and not (is_held and blocks.generation >= 0):
            self._choose_patterns(conversation.facts, served, blocks)
        patterns, contexts = blocks.patterns, NOTHING
        if self._config.contexts.enabled and draft.facts.question:
            contexts = self._choose_contexts(draft, served, blocks)
        body, has_patterns, has_contexts = draft.dialect.inject(draft.parsed, patterns.block, contexts.block)
        has_patterns = has_patterns or (is_held and bool(patterns.block))
        draft.generation = blocks.generation
        draft.is_holdout = blocks.holdout
        draft.drawn = patterns.drawn if has_patterns or not patterns.block else tuple(map(_untreated, patterns.drawn))
        has_place = has_contexts or not contexts.block
        draft.injections = contexts.injections if has_place else _not_in_play(contexts.injections)
        draft.injected_tokens = patterns.tokens * has_patterns + contexts.tokens * has_contexts
        return body

    def _blocks_of(self, draft: Draft, served: ServedTenant) -> _Blocks:
        """Return what the conversation was given last; what depended on another question is gone but for a loop."""
        key = (served.snapshot.tenant_id, draft.place.conversation.id)
        blocks = self._blocks.get(key)
        if blocks is None:
            blocks = _Blocks(conversation_seed(served.snapshot.secret, draft.place.conversation.id))
            self._blocks.put(key, blocks)
        if not draft.facts.question and draft.parsed.has_held_history:
            return blocks  # a tool's results alone: the question is one that the upstream was told before
        question_hash = hash(draft.facts.question)
        if blocks.question_hash != question_hash:
            blocks.question_hash = question_hash
            blocks.embedding = None
            blocks.refitted = None
            blocks.question_type = ""
            blocks.contexts_generation = NEVER
            blocks.contexts = NOTHING
        return blocks

    def _embedding(self, draft: Draft, blocks: _Blocks) -> NDArray[np.float32]:
        if blocks.embedding is None:
            blocks.embedding = self._embedder.embed_one(draft.facts.question)
        return blocks.embedding

    def _refitted(self, draft: Draft, blocks: _Blocks, table: RefitTable) -> NDArray[np.float32]:
        if blocks.refitted is None or blocks.refitted[0] is not table:
            blocks.refitted = (table, self._embedder.embed_refitted(draft.facts.question, table))
        return blocks.refitted[1]

    def _classify(self, draft: Draft, served: ServedTenant, blocks: _Blocks) -> None:
        """Tell the question's type by the tenant's own classifier, or the built-in one when none was trained."""
        snapshot = served.snapshot
        served.use.is_marked = True
        if not snapshot.is_classifier_loaded:
            return  # it stays unknown: the built-in types are not the tenant's
        is_outdated = blocks.nlu_version != snapshot.nlu_version and bool(draft.facts.question)
        if not blocks.question_type or is_outdated:
            classifier, table = snapshot.classifier or self._classifier, snapshot.classifier_refit
            vector = self._embedding(draft, blocks) if table is None else self._refitted(draft, blocks, table)
            question_type, confidence = classifier.classify(draft.facts.question, vector)
            blocks.nlu_version = snapshot.nlu_version
            least = max(self._config.question_types.min_confidence, classifier.least_confidence)
            blocks.question_type = question_type if confidence >= least else UNKNOWN_QUESTION_TYPE
            blocks.question_type_confidence = confidence
        draft.question_type = blocks.question_type
        draft.question_type_confidence = blocks.question_type_confidence

    def _choose_patterns(self, facts: Facts, served: ServedTenant, blocks: _Blocks) -> None:
        """Draw the conversation's patterns of the current generation."""
        snapshot, section = served.snapshot, self._config.patterns
        blocks.holdout = is_holdout(blocks.seed, section.holdout)
        if section.enabled:
            dimensions = served.index.dimensions(facts)
            blocks.patterns = select_patterns(dimensions, blocks.seed, section, holdout=blocks.holdout)
        blocks.generation = snapshot.generation

    def _choose_contexts(self, draft: Draft, served: ServedTenant, blocks: _Blocks) -> Selection:
        """Return the contexts. Within a tool loop they stay as they are, whatever was published."""
        served.use.is_marked = True
        is_begun_loop = blocks.contexts_generation != NEVER and draft.parsed.is_tool_loop
        if not is_begun_loop and blocks.contexts_generation != served.snapshot.generation:
            blocks.contexts, blocks.contexts_generation = self._chosen_contexts(draft, served, blocks)
        return blocks.contexts

    def _chosen_contexts(self, draft: Draft, served: ServedTenant, blocks: _Blocks) -> tuple[Selection, int]:
        """Return the contexts nearest to the question and the generation that they are of."""
        if served.search is None:
            self._count_unloaded()
            return NOTHING, UNLOADED
        if not len(served.search.contexts):
            return NOTHING, served.snapshot.generation
        section, generation = self._config.contexts, served.snapshot.generation
        question = self._embedding(draft, blocks)
        lot, asked = Lot(blocks.seed, self._clock.now_s()), clipped(draft.facts.question)
        if self._remote is not None and served.remote is not None:
            vector = self._remote.known(draft.facts.question)
            if vector is not None:
                remote = Look(served.remote.search, vector, served.remote.threshold)
                local = Look(served.search, question, served.threshold)
                return select_by_both(remote, local, served.remote.unmade, section, lot, asked=asked), generation
        if served.refit is not None:
            found_with = served.refit.found_with
            vector = self._refitted(draft, blocks, served.refit.table)
            own = Look(found_with.search, vector, found_with.threshold)
            local = Look(served.search, question, served.threshold)
            return select_by_both(own, local, found_with.unmade, section, lot, asked=asked), generation
        return select_contexts(served.search, question, served.threshold, section, lot, asked=asked), generation

    def record(self, draft: Draft, response_id: str, reply: Reply, ending: Ending) -> None:
        """Append the finished response to the segment."""
        history_hash = self._remember(draft, response_id, reply)
        record = record_of(draft, response_id, reply, ending, history_hash=history_hash, max_chars=self._max_chars)
        self._writer.append(encode_record(record), draft.drawn)
        self.tokens.injected += draft.injected_tokens
        self.tokens.prompt += reply.prompt_tokens or 0
        self.tokens.cached += reply.cached_tokens or 0

    def _remember(self, draft: Draft, response_id: str, reply: Reply) -> str:
        """Take note of how a turn ended, tell the other workers, and return the hash of the history that now stands."""
        place, tenant_id = draft.place, draft.facts.asker.tenant_id
        history_hash = self._book.remember(place, reply.message) if reply.message else ""
        reply_ids = (reply.upstream_id, *reply.item_ids) if reply.upstream_id else reply.item_ids
        self._know_reply(tenant_id, reply_ids, _Known(response_id, place.conversation))
        if self._siblings is not None:
            self._siblings.tell(
                TurnEnded(
                    tenant_id=tenant_id,
                    conversation_id=place.conversation.id,
                    facts=place.conversation.facts,
                    history_hash=history_hash,
                    request_hash=place.request_hash,
                    asked_first_s=self._book.asked_first_s(place),
                    reply_ids=reply_ids,
                    response_id=response_id,
                )
            )
        return history_hash or place.request_hash


class Turn:
    """One request and its reply. Without a draft (learning is off) it only passes through."""

    def __init__(
        self, learning: Learning, request: IncomingRequest, dialect: Dialect, count_failure: Callable[[], None]
    ) -> None:
        self.body = request.body
        self.response_id = new_id("resp", request.received_s)
        self.fail_open = FailOpen(self.response_id, count_failure)
        self.draft: Draft | None = None
        self.collector: ReplyCollector | None = None
        self._learning = learning
        self._first_byte_s: float | None = None
        self._is_finished = False

    @property
    def model(self) -> str | None:
        """Return the model that the request names; None without one."""
        return (self.draft.parsed.model or None) if self.draft is not None else model_of(self.body)

    def begin_reply(self, content_encoding: str) -> None:
        """Take note of the reply's head."""
        if self.collector is not None:
            with self.fail_open:
                self.collector.begin(content_encoding)

    def feed(self, chunk: bytes) -> bool:
        """Take note of the next bytes of the body; return whether the client has all of the reply once it has them."""
        if self.collector is not None:
            with self.fail_open:
                if self._first_byte_s is None and chunk:
                    self._first_byte_s = self._learning.now_s()
                self.collector.feed(chunk)
                return self.collector.is_complete
        return False

    def finish(self, outcome: Outcome, status: int, upstream: str) -> None:
        """Record the response; only the first call counts. *status*: what the client saw, 0 when nothing."""
        if self._is_finished or self.draft is None or self.collector is None:
            return
        self._is_finished = True
        with self.fail_open:
            ending = Ending(
                outcome=outcome,
                status=status,
                upstream=upstream,
                first_byte_s=self._first_byte_s,
                at_s=self._learning.now_s(),
            )
            self._learning.record(self.draft, self.response_id, self.collector.reply(), ending)


def _is_off(own: Mapping[str, str]) -> bool:
    """Return whether the client wants nothing of a request to be learned or injected."""
    return own.get("learn", "").lower() == "off"


def _parsed(dialect: Dialect, request: IncomingRequest) -> ParsedRequest | None:
    """Return the body parsed; None when it is encoded: what is in it is for the upstream alone."""
    try:
        return dialect.parse(request.body)
    except ApiError:
        if find(request.headers, b"content-encoding") is not None:
            return None
        raise


def _not_in_play(items: tuple[InjectionRecord, ...]) -> tuple[InjectionRecord, ...]:
    """Return contexts as they are recorded when their block found no place: no draw decided, so none counts."""
    return tuple(msgspec.structs.replace(item, treated=False, propensity=0.0, share=0.0) for item in items)


def _not_treated(items: tuple[InjectionRecord, ...]) -> tuple[InjectionRecord, ...]:
    """Return patterns as they are recorded when their block found no place in the request."""
    return tuple(msgspec.structs.replace(item, treated=False) for item in items)


def _known_tools(parsed: ParsedRequest) -> tuple[str, ...]:
    return tuple([name for name in parsed.tool_names() if len(name) <= MAX_TOOL_CHARS][:MAX_TOOLS])


def _untreated(drawn: InjectionSet) -> InjectionSet:
    return make_set(_not_treated(drawn.items))
