"""``POST`` and ``DELETE /v1/feedback``: validated, committed, then answered.

One thread owns the writing connection; signals that wait at the same time share one commit. The event loop never
waits for the disk.
"""

import asyncio
import dataclasses
import json
import logging
import queue
import sqlite3
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, cast

import msgspec

from proxy.errors import ApiError, unavailable
from proxy.json_body import whole_characters
from store.clock import Clock
from store.config import Config, FeedbackSection
from store.database import Database, open_database
from store.errors import NotFoundError, UnavailableError
from store.feedback import Signal, record_signal, withdraw_signal
from store.records import storable
from store.vocabulary import SIGNAL_TYPES, SignalType

logger = logging.getLogger(__name__)

LOOK_AGAIN_S: Final = 0.025  # between looks for a late record: the recorder moves records every 20 ms
MAX_ID_CHARS: Final = 256
MAX_NUMBER: Final = 1e300  # what a float holds; also keeps infinity and NaN out
MAX_WAITING: Final = 1000  # requests that wait for the writer; more are asked to come back
MAX_COMMIT: Final = 200  # requests that share one commit
BUSY_TIMEOUT_MS: Final = 2000  # a client waits here: sooner a 503 than the whole [store] busy_timeout_ms

Work = Callable[[Database], bytes]
OwnId = Callable[[str, str], str | None]


class UnknownResponseError(NotFoundError):
    """A signal names a response that the tenant does not have."""

    def __init__(self, response_id: str, param: str) -> None:
        super().__init__(f"No response {response_id!r}.")
        self.param = param


@dataclasses.dataclass(slots=True)
class _Job:
    work: Work
    loop: asyncio.AbstractEventLoop
    answer: "asyncio.Future[bytes]"

    def settle(self, result: bytes | Exception) -> None:
        """Hand the outcome to whoever waits, on its own thread."""
        try:
            self.loop.call_soon_threadsafe(self._settle, result)
        except RuntimeError:  # its loop was closed: nobody waits any more
            logger.warning("a signal's sender left before its answer")

    def _settle(self, result: bytes | Exception) -> None:
        if self.answer.done():  # cancelled: the client left
            return
        if isinstance(result, Exception):
            self.answer.set_exception(result)
        else:
            self.answer.set_result(result)


class FeedbackWriter:
    """The thread that commits: many jobs in one transaction, each of them whole or not at all."""

    def __init__(self, config: Config) -> None:
        busy_timeout_ms = min(config.store.busy_timeout_ms, BUSY_TIMEOUT_MS)
        self._section = dataclasses.replace(config.store, busy_timeout_ms=busy_timeout_ms)
        self._jobs: queue.Queue[_Job | None] = queue.Queue(MAX_WAITING)
        self._db: Database | None = None
        self._thread = threading.Thread(target=self._run, name="feedback", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Finish what waits, then stop."""
        self._jobs.put(None)
        self._thread.join()
        self._close()

    async def commit(self, work: Work) -> bytes:
        """Return what *work* returned, once it is on the disk.

        Raises:
            UnavailableError: the database cannot take it now; nothing was written.
            NotFoundError: raised by *work*, of which nothing was written.
        """
        loop = asyncio.get_running_loop()
        job = _Job(work, loop, loop.create_future())
        try:
            self._jobs.put_nowait(job)
        except queue.Full as exc:
            raise UnavailableError("too many signals wait") from exc
        return await job.answer

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            jobs = [job]
            while len(jobs) < MAX_COMMIT and not self._jobs.empty():
                following = self._jobs.get()
                if following is None:
                    self._jobs.put(None)
                    break
                jobs.append(following)
            self._commit(jobs)

    def _commit(self, jobs: Sequence[_Job]) -> None:
        try:
            results = self._commit_all(self._database(), jobs)
        except Exception as exc:  # the thread must outlive whatever one batch meets
            logger.exception("signals cannot be written")
            self._close()
            results = [UnavailableError(str(exc))] * len(jobs)
        for job, result in zip(jobs, results, strict=True):
            job.settle(result)

    def _commit_all(self, db: Database, jobs: Sequence[_Job]) -> Sequence[bytes | Exception]:
        with db.transaction():
            results = [_in_savepoint(db, job.work) for job in jobs]
        if not db.is_current():
            raise UnavailableError(f"{db.path} was deleted or replaced")
        return results

    def _database(self) -> Database:
        if self._db is not None and not self._db.is_current():
            self._close()
        if self._db is None:
            self._db = open_database(self._section, create=False, durable=True)
        return self._db

    def _close(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None


def _in_savepoint(db: Database, work: Work) -> bytes | Exception:
    db.execute("SAVEPOINT job")
    try:
        result: bytes | Exception = work(db)
    except (NotFoundError, sqlite3.IntegrityError) as exc:
        db.execute("ROLLBACK TO job")
        result = exc
    db.execute("RELEASE job")
    return result


class FeedbackEndpoints:
    """Takes signals and takes them back."""

    def __init__(self, section: FeedbackSection, writer: FeedbackWriter, clock: Clock, own_id: OwnId) -> None:
        """Take what is needed.

        Args:
            section: limits and weights.
            writer: commits.
            clock: tells when a signal came.
            own_id: (tenant, id in a reply's body) -> our id of the newest such response, None when long ago.
        """
        self._section = section
        self._writer = writer
        self._clock = clock
        self._own_id = own_id

    async def add(self, tenant_id: str, body: bytes) -> tuple[int, bytes]:
        """Return 201 and the answer to one signal, or to a list of them, once they are committed.

        Raises:
            ApiError: 400 bad input, 404 an unknown response (nothing of a list was written), 503 the database is
                missing or locked.
        """
        signals, is_list = parse_signals(body, self._section)
        own_ids = [self._own_id(tenant_id, signal.response_id) for signal in signals]
        now_s = self._clock.now_s()

        def work(db: Database) -> bytes:
            answers = []
            for index, (signal, own_id) in enumerate(zip(signals, own_ids, strict=True)):
                try:
                    answer = record_signal(
                        db, tenant_id, signal, self._section, source="api", now_s=now_s, own_id=own_id
                    )
                    answers.append(answer)
                except NotFoundError as exc:
                    raise UnknownResponseError(signal.response_id, _param("response_id", index, is_list)) from exc
            return msgspec.json.encode(answers if is_list else answers[0])

        return 201, await self._commit_when_known(work)

    async def _commit_when_known(self, work: Work) -> bytes:
        """Commit; a record may arrive a little later than the signal about it."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._section.wait_s
        while True:
            try:
                return await self._commit(work)
            except UnknownResponseError as exc:
                if loop.time() >= deadline:
                    raise ApiError(404, str(exc), param=exc.param, code="response_not_found") from exc
            await asyncio.sleep(LOOK_AGAIN_S)

    async def withdraw(self, tenant_id: str, signal_id: str) -> tuple[int, bytes]:
        """Return 200 once the signal is taken back.

        Raises:
            ApiError: 404 the tenant has no such signal, 503 the database is missing or locked.
        """

        def work(db: Database) -> bytes:
            withdraw_signal(db, tenant_id, signal_id)
            return msgspec.json.encode({"id": signal_id, "deleted": True})

        try:
            return 200, await self._commit(work)
        except NotFoundError as exc:
            raise ApiError(404, f"No signal {signal_id!r}.", param="id", code="signal_not_found") from exc

    async def _commit(self, work: Work) -> bytes:
        try:
            return await self._writer.commit(work)
        except UnavailableError as exc:
            raise unavailable("Signals cannot be stored just now; send it again.", "database_unavailable") from exc


def parse_signals(body: bytes, section: FeedbackSection) -> tuple[list[Signal], bool]:
    """Return the signals in *body* and whether it was a list.

    Raises:
        ApiError: 400; ``param`` names the field, in a list with its index: ``[3].signal``.
    """
    value = _decode(body)
    if not isinstance(value, list):
        return [_signal(value, section, "")], False
    if not 0 < len(value) <= section.max_batch:
        raise ApiError(400, f"A list must hold 1 to {section.max_batch} signals, not {len(value)}.")
    return [_signal(item, section, f"[{index}].") for index, item in enumerate(value)], True


def _decode(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # Python's own reader knows NaN and 1e999, so that the field they stand in can be named.
        try:
            return json.loads(whole_characters(body).decode())
        except (ValueError, RecursionError) as exc:
            raise ApiError(400, f"The request body is not valid JSON: {exc}", code="invalid_json") from exc


def _signal(value: Any, section: FeedbackSection, prefix: str) -> Signal:
    if not isinstance(value, dict):
        raise ApiError(400, "A signal must be a JSON object.", param=prefix.rstrip(".") or None)
    max_chars = int(section.max_text_kb * 1000)
    signal_type = _text(value, "signal", prefix, MAX_ID_CHARS, is_required=True)
    if signal_type not in SIGNAL_TYPES:
        raise _bad(prefix + "signal", f"must be one of {', '.join(SIGNAL_TYPES)}, not {signal_type!r}")
    return Signal(
        response_id=_text(value, "response_id", prefix, MAX_ID_CHARS, is_required=True) or "",
        signal=cast("SignalType", signal_type),
        user=_text(value, "user", prefix, MAX_ID_CHARS) or "",
        id=_text(value, "id", prefix, MAX_ID_CHARS) or None,
        value=_number(value, prefix, is_time=signal_type == "dwell_time"),
        comment=_text(value, "comment", prefix, max_chars),
        correction=_text(value, "correction", prefix, max_chars),
        metadata=_metadata(value, prefix, max_chars),
    )


def _text(value: Mapping[str, Any], name: str, prefix: str, max_chars: int, *, is_required: bool = False) -> str | None:
    text = value.get(name)
    if text is None and not is_required:
        return None
    if not isinstance(text, str):
        raise _bad(prefix + name, "is required" if text is None else f"must be a string, not {text!r:.100}")
    if is_required and not text:
        raise _bad(prefix + name, "must not be empty")
    if len(text) > max_chars:
        raise _bad(prefix + name, f"must have at most {max_chars} characters, not {len(text)}")
    return storable(text)


def _number(value: Mapping[str, Any], prefix: str, *, is_time: bool) -> float | None:
    number = value.get("value")
    if number is None:
        return None
    if isinstance(number, bool) or not isinstance(number, int | float) or not abs(number) < MAX_NUMBER:
        raise _bad(prefix + "value", f"must be a number, not {number!r:.100}")
    if is_time and number < 0:
        raise _bad(prefix + "value", f"must be seconds from 0, not {number!r}")
    return float(number)


def _metadata(value: Mapping[str, Any], prefix: str, max_chars: int) -> Mapping[str, Any]:
    metadata = value.get("metadata")
    if metadata is None:
        return {}
    if not isinstance(metadata, dict):
        raise _bad(prefix + "metadata", f"must be an object, not {metadata!r:.100}")
    if len(msgspec.json.encode(metadata)) > max_chars:
        raise _bad(prefix + "metadata", f"must have at most {max_chars} bytes")
    return metadata


def _bad(param: str, problem: str) -> ApiError:
    return ApiError(400, f"'{param}' {problem}.", param=param, code="invalid_value")


def _param(name: str, index: int, is_list: bool) -> str:
    return f"[{index}].{name}" if is_list else name
