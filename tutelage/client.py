"""``ConversationLogger``: sends a channel's classified messages to Tutelage, without ever being in the channel's way.

    from tutelage.client import ConversationLogger

    logger = ConversationLogger()                       # from ADMIN_BACKEND_URL, ADMIN_BACKEND_API_KEY, ...
    logger.log("track my order", "track_order", 0.95, phone_number="+919876543210", current_step="main_menu")

Only the standard library is imported. ``log`` takes some microseconds, waits for nothing and raises nothing, so an
async app calls it as it is; ``flush``, ``sync`` and ``close`` wait, there ``await asyncio.to_thread(logger.flush)``.

What is kept, and from when on:

1. ``log`` returned an id: the message is in memory. A ``kill -9`` of this process now loses it.
2. At most ``GROUP_S`` (20 ms) and the time of one write and fsync later it is in the spill file, and neither a kill nor
   a power cut loses it. ``sync()`` returns True once this holds for everything that was logged before.
3. The server answered that it has it: ``flush()`` returns True once this holds. Sent are 10 messages at once or what is
   there after 30 seconds. Each has an id made here, so one that is sent again, because an answer was lost or a process
   died before it read it, is not there twice.

``log`` returned ``""``: the message was not accepted, because logging is off or closed, the message cannot be one, or
memory is full because neither server nor disk take anything; ``stats`` counts these.

While the server is away messages wait in the spill directory, up to ``max_spill_mb`` of all processes that share it,
then in memory. What a process leaves behind is sent by the next one that uses the directory, or by another that runs
already, within ``ADOPT_S``. The files hold messages and phone numbers as they were logged, readable for their owner
alone, until they are delivered. Where a system has no file locks (Windows), messages wait in memory only.
"""

import atexit
import hashlib
import itertools
import json
import logging
import os
import random
import signal
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from types import FrameType
from typing import Any, Literal, Self

from tutelage.client_delivery import Backend
from tutelage.client_journal import FileJournal, Journal, MemoryJournal, can_spill, orphans

log = logging.getLogger(__name__)

DEFAULT_URL = "http://127.0.0.1:8485"
BATCH_SIZE = 10  # messages that are sent as soon as they are there
INTERVAL_S = 30.0  # that fewer wait
GROUP_S = 0.02  # in which messages are gathered before they are written to disk together
ADOPT_S = 10.0  # between looks for what other processes left behind
RETRY_S, MAX_RETRY_S = 0.5, 60.0  # after a failure; doubles up to the second, drawn from its upper half
DISK_RETRY_S = 0.5
MAX_BUFFERED = 10_000  # messages that wait to be written; beyond, log() accepts no more
MAX_MEMORY_BYTES = 8_000_000  # that wait in memory where no file takes them
MAX_SENT_LINES, MAX_SENT_BYTES = 1000, 1_000_000  # of one delivery
MAX_TEXT_CHARS, MAX_LABEL_CHARS = 20_000, 200  # as the server takes them; texts are cut
MAX_ITEM_BYTES = 500_000
EXIT_S = 5.0  # that messages get to be delivered when the process ends
WARN_S = 60.0  # between two warnings about the same thing
OFF = ("0", "false", "no", "off")


@dataclass(frozen=True, slots=True)
class Stats:
    """What became of messages since this process began; *n_waiting* are on their way."""

    n_accepted: int
    n_delivered: int
    n_refused: int  # the server turned them down; a warning said why
    n_dropped: int  # not accepted
    n_waiting: int


@dataclass(slots=True)
class _Marker:
    """Stands in the queue behind all that was logged before somebody began to wait."""

    kind: Literal["written", "delivered"]
    gives_up: bool = False  # at the first failure
    is_good: bool = False
    done: threading.Event = field(default_factory=threading.Event)
    positions: tuple[int, ...] = ()

    def settle(self, is_good: bool) -> None:
        self.is_good = is_good
        self.done.set()


class ConversationLogger:
    """Sends messages in the background; see the module for what is kept from when on. Safe to share between threads.

    Args:
        url: of the learner; ADMIN_BACKEND_URL, else this machine's.
        api_key: an admin key; ADMIN_BACKEND_API_KEY. Not needed in open mode.
        enabled: CONVERSATION_LOGGING_ENABLED, on unless that says 0, false, no or off.
        review_below_confidence: CONFIDENCE_THRESHOLD_FOR_REVIEW; below it a message is flagged for a review. Without
            one the server's setting decides.
        source: named in the tags of each example, such as the channel's name.
        spill_directory: where messages wait. By default one below ``~/.local/state/tutelage`` (or XDG_STATE_HOME), for
            this URL and key alone: what was meant for one tenant is never sent to another. Processes that are given
            the same one share it. ``""`` keeps messages in memory only.
        max_spill_mb: megabytes of all files in it.
        batch_size: messages that are sent as soon as they are there.
        interval_s: seconds that fewer wait at most.
        timeout_s: seconds that one delivery may take.
        handle_sigterm: deliver what is there when SIGTERM ends the process; only where nobody else handles it, and
            when made in the main thread.
    """

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        enabled: bool | None = None,
        review_below_confidence: float | None = None,
        source: str | None = None,
        spill_directory: str | os.PathLike[str] | None = None,
        max_spill_mb: float = 64.0,
        batch_size: int = BATCH_SIZE,
        interval_s: float = INTERVAL_S,
        timeout_s: float = 10.0,
        handle_sigterm: bool = True,
    ) -> None:
        """Read the settings; nothing is opened or started before the first message.

        Raises:
            ValueError: the URL is no http(s) URL, or the threshold no number from 0 to 1.
        """
        given = url or os.environ.get("ADMIN_BACKEND_URL") or DEFAULT_URL
        key = os.environ.get("ADMIN_BACKEND_API_KEY", "") if api_key is None else api_key
        switch = os.environ.get("CONVERSATION_LOGGING_ENABLED", "").strip().lower() not in OFF
        self._is_enabled = switch if enabled is None else enabled
        self._backend = Backend(given, key, timeout_s)
        self._review_below = _threshold(review_below_confidence)
        self._source = source
        self._directory = _directory(spill_directory, given, key)
        self._max_spill_bytes = int(max_spill_mb * 1_000_000)
        self._batch_size = batch_size
        self._interval_s = interval_s
        self._begin()
        itself = weakref.ref(self)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=lambda: _call(itself, "_after_fork"))
        atexit.register(lambda: _call(itself, "_at_exit"))
        if handle_sigterm and threading.current_thread() is threading.main_thread():
            _handle_sigterm(itself)

    def _begin(self) -> None:
        """Begin with nothing: in a new logger, and in a forked process, whose parent keeps what it had."""
        self._id_prefix = os.urandom(12).hex()
        self._numbers = itertools.count(1)
        # Reentrant, unlike an event or a lock: a signal's handler may log or close in the middle of a log().
        self._queue: SimpleQueue[bytes | _Marker] = SimpleQueue()
        self._held: deque[bytes | _Marker] = deque()  # taken from it and not yet written; the writer's own
        self._n_dropped = itertools.count()
        self._dropped = 0
        self._start_lock = threading.Lock()
        self._changed = threading.Condition()  # guards all that follows
        self._threads: tuple[threading.Thread, ...] = ()
        self._n_running = 0
        self._is_closed = False
        self._files = FileJournal(self._directory, self._max_spill_bytes) if self._directory else None
        self._memory = MemoryJournal(MAX_MEMORY_BYTES)
        self._markers: list[_Marker] = []
        self._oldest_s = 0.0  # when the oldest message that waits was written
        self._not_before_s = 0.0
        self._is_server_wish = False  # that nothing is sent before then
        self._n_failures = 0
        self._adopted_s = -ADOPT_S
        self._n_delivered = 0
        self._n_refused = 0
        self._warned_s: dict[str, float] = {}

    # What the caller does

    def log(
        self,
        message_text: str,
        intent: str,
        confidence: float,
        *,
        phone_number: str | None = None,
        current_step: str | None = None,
        timestamp_ms: int | None = None,
        alternatives: Sequence[tuple[str, float]] = (),
    ) -> str:
        """Take in one classified message and return its id, or "" when it was not accepted.

        Args:
            message_text: what the user wrote; cut after 20,000 characters.
            intent: what it was taken for.
            confidence: of that, 0 to 1; under the threshold a person is asked.
            phone_number: whose; the server keeps a keyed hash alone.
            current_step: where in the dialogue.
            timestamp_ms: milliseconds since 1970; now, when None.
            alternatives: other intents with their confidences: they say better what a person should look at.
        """
        if not self._is_enabled:
            return ""
        try:
            sure = float(confidence)
            if not (0.0 <= sure <= 1.0 and message_text.strip() and intent.strip()):
                return self._refuse("a message needs a text, an intent and a confidence from 0 to 1")
            item: dict[str, Any] = {
                "messageText": message_text[:MAX_TEXT_CHARS],
                "intent": intent[:MAX_LABEL_CHARS],
                "confidence": sure,
                "timestamp": int(time.time() * 1000) if timestamp_ms is None else int(timestamp_ms),
            }
            if phone_number:
                item["phoneNumber"] = phone_number
            if current_step:
                item["currentStep"] = current_step[:MAX_LABEL_CHARS]
            if self._source:
                item["source"] = self._source
            if alternatives:
                item["alternatives"] = [{"intent": name, "confidence": float(other)} for name, other in alternatives]
            if self._review_below is not None:
                item["needsReview"] = sure < self._review_below
            return self._accept(item)
        except Exception as exc:  # whatever was given: the conversation goes on
            return self._refuse(f"{type(exc).__name__}: {exc}")

    def log_conversation(
        self,
        chat_id: str,
        messages: Sequence[Mapping[str, Any]],
        *,
        tags: Sequence[str] = (),
        resolved: bool | None = None,
        phone_number: str | None = None,
    ) -> str:
        """Take in a whole conversation and return an id, or "" when it was not accepted.

        Args:
            chat_id: the same again is the same conversation, in its newer state.
            messages: ``{"role", "content"}`` and, for answers, ``"agent": "ai"`` or ``"human"``.
            tags: what it was about.
            resolved: whether the user was helped; None when nobody knows.
            phone_number: whose; the server keeps a keyed hash alone.
        """
        if not self._is_enabled:
            return ""
        try:
            item: dict[str, Any] = {"chatId": chat_id, "messages": list(messages), "tags": list(tags)}
            if resolved is not None:
                item["resolved"] = resolved
            if phone_number:
                item["phoneNumber"] = phone_number
            return self._accept(item)
        except Exception as exc:  # whatever was given: the conversation goes on
            return self._refuse(f"{type(exc).__name__}: {exc}")

    def _accept(self, item: dict[str, Any]) -> str:
        if self._is_closed or self._n_queued >= MAX_BUFFERED:
            return self._refuse("the logger is closed" if self._is_closed else "too many messages wait to be written")
        item_id = f"{self._id_prefix}-{next(self._numbers)}"
        item["id"] = item_id
        # Now, not in the background: the caller may change what it passed, and what cannot be written is named here.
        line = json.dumps(item, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
        if len(line) > MAX_ITEM_BYTES:
            return self._refuse(f"larger than {MAX_ITEM_BYTES} bytes")
        self._queue.put(line)
        if not self._threads:
            self._start()
        return item_id

    @property
    def _n_queued(self) -> int:
        return self._queue.qsize() + len(self._held)

    def _refuse(self, reason: str) -> str:
        self._dropped = next(self._n_dropped) + 1
        self._warn(f"a message was not logged: {reason}")
        return ""

    def sync(self, timeout_s: float = 5.0) -> bool:
        """Return whether everything logged before is on disk, or delivered, waiting up to *timeout_s*."""
        return self._await(_Marker("written"), timeout_s)

    def flush(self, timeout_s: float = 10.0) -> bool:
        """Return whether the server has everything logged before, waiting up to *timeout_s*."""
        return self._await(_Marker("delivered"), timeout_s)

    def close(self, timeout_s: float = EXIT_S) -> bool:
        """Deliver what is there and stop; return whether all of it is delivered. What is not stays in its files.

        A server that does not answer is not waited for longer than one try.
        """
        if self._is_closed or not self._threads:
            self._is_closed = True
            return True
        is_delivered = self._await(_Marker("delivered", gives_up=True), timeout_s)
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        self._queue.put(_Marker("written"))  # wakes the writer
        for thread in self._threads:
            thread.join(1.0)
        return is_delivered

    @property
    def stats(self) -> Stats:
        """What became of the messages of this process."""
        with self._changed:
            n_taken = sum(journal.n_taken for journal in self._journals)
            n_appended = sum(journal.n_appended for journal in self._journals)
            n_queued = self._n_queued
            return Stats(
                n_accepted=n_appended + n_queued,
                n_delivered=self._n_delivered,
                n_refused=self._n_refused,
                n_dropped=self._dropped,
                n_waiting=n_appended - n_taken + n_queued,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _await(self, marker: _Marker, timeout_s: float) -> bool:
        if not self._threads or self._is_closed:
            return not self._n_queued
        self._queue.put(marker)
        marker.done.wait(timeout_s)
        return marker.is_good

    # The process around it

    def _start(self) -> None:
        with self._start_lock:
            if self._threads or self._is_closed:
                return
            self._threads = tuple(
                threading.Thread(target=self._work, args=(work,), name=f"conversation-logger-{name}", daemon=True)
                for name, work in (("writer", self._write_all), ("sender", self._send_all))
            )
            self._n_running = len(self._threads)
            for thread in self._threads:
                thread.start()

    def _work(self, work: Callable[[], None]) -> None:
        try:
            work()
        finally:
            with self._changed:
                self._n_running -= 1
                if not self._n_running and self._files is not None:
                    self._files.close()

    def _after_fork(self) -> None:
        if self._files is not None:
            self._files.abandon()
        self._begin()

    def _at_exit(self) -> None:
        self.close()

    def _warn(self, message: str) -> None:
        kind, now = message[:40], time.monotonic()
        if now - self._warned_s.get(kind, -WARN_S) >= WARN_S:
            self._warned_s[kind] = now
            log.warning("%s (more like it in the next %.0f s are not reported)", message, WARN_S)

    # The thread that writes

    @property
    def _journals(self) -> tuple[Journal, ...]:
        return (self._memory,) if self._files is None else (self._files, self._memory)

    def _write_all(self) -> None:
        while not (self._is_closed and not self._n_queued):
            if not self._held:
                self._held.append(self._queue.get())
                time.sleep(0.0 if self._is_closed else GROUP_S)
            while len(self._held) < MAX_SENT_LINES and not self._queue.empty():
                self._held.append(self._queue.get())
            if not self._write_held():  # neither disk nor memory takes it at the moment
                if self._is_closed:
                    return
                time.sleep(DISK_RETRY_S)

    def _write_held(self) -> bool:
        """Move what is held, up to the first marker, into a journal; return whether one took it."""
        lines: list[bytes] = []
        size = 0
        for one in self._held:
            size += len(one) if isinstance(one, bytes) else 0
            if not isinstance(one, bytes) or (lines and size > MAX_SENT_BYTES):
                break
            lines.append(one)
        if lines and not self._append(lines):
            return False
        for _ in lines:
            self._held.popleft()
        if self._held and isinstance(marker := self._held[0], _Marker):
            self._held.popleft()
            self._place(marker)
        return True

    def _append(self, lines: Sequence[bytes]) -> bool:
        with self._changed:
            was_empty = all(journal.n_appended == journal.n_taken for journal in self._journals)
            for journal in self._journals:
                try:
                    journal.append(lines)
                except OSError as exc:
                    self._warn(f"messages cannot wait in {type(journal).__name__}: {exc}")
                    continue
                if was_empty:
                    self._oldest_s = time.monotonic()
                self._changed.notify_all()
                return True
        return False

    def _place(self, marker: _Marker) -> None:
        with self._changed:
            if marker.kind == "written" and self._memory.n_appended == self._memory.n_taken:
                marker.settle(is_good=True)
                return
            marker.positions = tuple(journal.n_appended for journal in self._journals)
            self._markers.append(marker)
            self._settle_markers()
            self._changed.notify_all()

    def _settle_markers(self) -> None:
        taken = tuple(journal.n_taken for journal in self._journals)
        for marker in [one for one in self._markers if all(map(int.__ge__, taken, one.positions))]:
            self._markers.remove(marker)
            marker.settle(is_good=True)

    # The thread that sends

    def _send_all(self) -> None:
        while True:
            with self._changed:
                while (delay_s := self._delay_s()) > 0 and not self._is_closed:
                    self._changed.wait(delay_s)
                if self._is_closed:
                    return
            is_reached = all(self._deliver(journal) for journal in self._journals)
            if is_reached and self._directory is not None:
                self._adopt(self._directory)

    def _delay_s(self) -> float:
        """Return the seconds until something is to be sent."""
        now = time.monotonic()
        n_waiting = sum(journal.n_appended - journal.n_taken for journal in self._journals)
        if n_waiting >= self._batch_size or self._markers:
            due = now
        else:
            due = min(self._oldest_s + self._interval_s if n_waiting else now + INTERVAL_S, self._adopted_s + ADOPT_S)
        is_urgent = any(marker.gives_up for marker in self._markers) and not self._is_server_wish
        return (due if is_urgent else max(due, self._not_before_s)) - now

    def _deliver(self, journal: Journal) -> bool:
        """Send all that *journal* holds; return False when the server could not be reached or did not take it."""
        while True:
            with self._changed:
                lines = journal.front(MAX_SENT_LINES, MAX_SENT_BYTES)
            if not lines:
                return True
            n_settled = self._settle(lines)
            with self._changed:
                journal.take(lines[:n_settled])
                self._oldest_s = time.monotonic()
                self._settle_markers()
            if n_settled < len(lines):
                return False

    def _settle(self, lines: Sequence[bytes]) -> int:
        """Send *lines*; return how many, from the first, are settled: taken by the server or turned down by it."""
        verdict = self._backend.post(lines)
        with self._changed:
            if verdict.outcome == "later":
                self._put_off(verdict.reason, verdict.wait_s)
                return 0
            self._n_failures = 0
            self._not_before_s = 0.0
            if verdict.outcome == "taken" or len(lines) == 1:
                n_bad = verdict.n_bad if verdict.outcome == "taken" else 1
                self._n_delivered += len(lines) - n_bad
                self._n_refused += n_bad
                if n_bad:
                    self._warn(f"the server turned {n_bad} of {len(lines)} messages down: {verdict.reason}")
                return len(lines)
        half = len(lines) // 2
        n_settled = self._settle(lines[:half])
        return n_settled if n_settled < half else half + self._settle(lines[half:])

    def _put_off(self, reason: str, wait_s: float | None) -> None:
        delay_s = min(RETRY_S * 2.0**self._n_failures, MAX_RETRY_S) * random.uniform(0.5, 1.0)  # noqa: S311
        self._n_failures = min(self._n_failures + 1, 20)
        self._is_server_wish = wait_s is not None
        self._not_before_s = time.monotonic() + max(delay_s, wait_s or 0.0)
        self._warn(f"messages wait, for they could not be sent: {reason}")
        for marker in [one for one in self._markers if one.gives_up]:
            self._markers.remove(marker)
            marker.settle(is_good=False)

    def _adopt(self, directory: Path) -> None:
        """Send what processes left behind that are no more."""
        if time.monotonic() - self._adopted_s < ADOPT_S:
            return
        self._adopted_s = time.monotonic()
        try:
            for journal in orphans(directory, self._max_spill_bytes):
                try:
                    is_reached = self._deliver(journal)
                finally:
                    journal.close()
                if not is_reached or self._is_closed:
                    return
        except OSError as exc:
            self._warn(f"{directory} cannot be looked through: {exc}")


def _call(reference: "weakref.ref[ConversationLogger]", method: str) -> None:
    logger = reference()
    if logger is not None:
        getattr(logger, method)()


def _handle_sigterm(reference: "weakref.ref[ConversationLogger]") -> None:
    if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        return

    def end(number: int, _frame: FrameType | None) -> None:
        _call(reference, "_at_exit")
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)  # so that whoever asked sees a process that ended by the signal

    signal.signal(signal.SIGTERM, end)


def _threshold(given: float | None) -> float | None:
    value: str | float | None = os.environ.get("CONFIDENCE_THRESHOLD_FOR_REVIEW", "").strip() or None
    value = value if given is None else given
    try:
        value = None if value is None else float(value)
    except ValueError as exc:
        raise ValueError(f"CONFIDENCE_THRESHOLD_FOR_REVIEW must be a number, not {value!r}") from exc
    if value is not None and not 0 <= value <= 1:
        raise ValueError(f"the confidence under which a message is reviewed must be from 0 to 1, not {value!r}")
    return value


def _directory(given: str | os.PathLike[str] | None, url: str, api_key: str) -> Path | None:
    if given == "" or not can_spill():
        return None
    if given is not None:
        return Path(given)
    try:
        state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    except RuntimeError as exc:  # an account without a home
        log.warning("messages wait in memory only: %s; give a spill_directory", exc)
        return None
    target = hashlib.sha256(f"{url}\x00{api_key}".encode()).hexdigest()[:16]
    return Path(state) / "tutelage" / f"spill-{target}"
