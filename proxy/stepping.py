"""Coroutines that run inside a protocol's callbacks: no task, no future, no turn of the event loop between two steps.

A request on its way waits three or four times, and a stream once for each piece. A task with a future for each wait
costs two to three microseconds a time; resuming the coroutine where the bytes arrived costs a tenth of that.
"""

import asyncio
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context
from typing import Any, Self


class Wakeup:
    """What one coroutine at a time awaits until ``wake`` is called; it can be awaited again and again.

    It looks like a future (asyncio asks for no more than ``_asyncio_future_blocking``), so a task can await it too.
    """

    __slots__ = ("_asyncio_future_blocking", "_callback", "_is_cancelled", "listener")

    def __init__(self) -> None:
        self.listener: Callable[[], object] | None = None
        """Called by ``wake``, once: the step of a ``Stepper`` that waits here."""
        self._asyncio_future_blocking = False
        self._callback: tuple[Callable[[Any], object], Context | None] | None = None  # of a task that waits here
        self._is_cancelled = False

    def wake(self) -> None:
        """Let the coroutine that waits here go on, if there is one; a ``Stepper``'s goes on at once."""
        listener = self.listener
        if listener is not None:
            self.listener = None
            listener()
        elif self._callback is not None:
            (callback, context), self._callback = self._callback, None
            asyncio.get_running_loop().call_soon(callback, self, context=context)

    def __await__(self) -> Generator[Self, None, None]:
        self._asyncio_future_blocking = True
        yield self

    # What a task asks of a future.

    def get_loop(self) -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    def add_done_callback(self, callback: Callable[[Any], object], *, context: Context | None = None) -> None:
        self._callback = (callback, context)

    def cancel(self, msg: object = None) -> bool:
        del msg
        self._is_cancelled = True
        self.wake()
        return True

    def result(self) -> None:
        if self._is_cancelled:
            self._is_cancelled = False
            raise asyncio.CancelledError


class Stepper:
    """Runs one coroutine, each step where its wait ended. The coroutine must catch its own errors.

    What it awaits may be a ``Wakeup`` or a future of the running loop; it is no task, so ``asyncio.timeout`` and
    whatever else needs the current task cannot be used inside.
    """

    __slots__ = ("_coroutine",)

    def __init__(self, coroutine: Coroutine[Any, None, None]) -> None:
        self._coroutine = coroutine

    def step(self, _: object = None) -> None:
        """Run up to the next wait, or to the end."""
        try:
            waited = self._coroutine.send(None)
        except StopIteration:
            return
        if type(waited) is Wakeup:
            waited.listener = self.step
        elif waited is None:  # a bare yield: only to let others run
            asyncio.get_running_loop().call_soon(self.step)
        else:
            waited._asyncio_future_blocking = False  # noqa: SLF001 - as a task does it
            waited.add_done_callback(self.step)
