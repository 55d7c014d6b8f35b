"""Coroutines that run where their wait ends."""

import asyncio
from collections.abc import Callable

import pytest

from proxy.stepping import Stepper, Wakeup


def test_a_coroutine_goes_on_inside_the_call_that_wakes_it() -> None:
    seen: list[str] = []
    wakeup = Wakeup()

    async def twice() -> None:
        seen.append("begun")
        await wakeup
        seen.append("woken")
        await wakeup
        seen.append("woken again")

    Stepper(twice()).step()
    after_start = seen.copy()
    wakeup.wake()
    after_first = seen.copy()
    wakeup.wake()
    wakeup.wake()  # nobody waits any more
    assert (after_start, after_first) == (["begun"], ["begun", "woken"])
    assert seen == ["begun", "woken", "woken again"]


def test_a_wake_before_the_wait_is_not_remembered() -> None:
    wakeup, seen = Wakeup(), list[str]()

    async def wait() -> None:
        await wakeup
        seen.append("woken")

    wakeup.wake()
    Stepper(wait()).step()
    assert seen == []
    wakeup.wake()
    assert seen == ["woken"]


def test_futures_and_bare_yields_can_be_awaited_too() -> None:
    async def run() -> list[str]:
        seen: list[str] = []
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        failing: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def waits() -> None:
            await asyncio.sleep(0)
            seen.append(await future)
            with pytest.raises(ValueError, match="no"):
                await failing
            seen.append("failed")

        Stepper(waits()).step()
        future.set_result("answered")
        failing.set_exception(ValueError("no"))
        while len(seen) < 2:
            await asyncio.sleep(0)
        return seen

    assert asyncio.run(run()) == ["answered", "failed"]


def test_a_task_can_wait_for_a_wakeup() -> None:
    async def run() -> str:
        wakeup = Wakeup()
        asyncio.get_running_loop().call_later(0.001, wakeup.wake)
        await wakeup
        asyncio.get_running_loop().call_later(0.001, wakeup.wake)
        await wakeup
        return "woken twice"

    assert asyncio.run(run()) == "woken twice"


def test_a_task_that_waits_for_a_wakeup_can_be_cancelled() -> None:
    async def cancelled(wait: Callable[[Wakeup], asyncio.Task[None]]) -> bool:
        wakeup = Wakeup()
        task = wait(wakeup)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        wakeup.wake()
        return task.cancelled()

    def wait(wakeup: Wakeup) -> asyncio.Task[None]:
        async def forever() -> None:
            await wakeup

        return asyncio.get_running_loop().create_task(forever())

    assert asyncio.run(cancelled(wait))
