"""Waits of a request that end early when its client leaves."""

import asyncio

from proxy.errors import ClientGoneError
from proxy.stepping import Wakeup
from proxy.upstream import Cancellation


async def wait(wakeup: Wakeup, seconds: float, cancellation: Cancellation) -> None:
    """Return once *wakeup* is woken, or after *seconds*.

    Raises:
        ClientGoneError: the client left before.
    """
    if not cancellation.is_cancelled:
        timer = asyncio.get_running_loop().call_later(seconds, wakeup.wake)
        cancellation.listen(wakeup.wake)
        try:
            await wakeup
        finally:
            timer.cancel()
            cancellation.listen(None)
    if cancellation.is_cancelled:
        raise ClientGoneError("the client left while its request waited")


async def pause(seconds: float, cancellation: Cancellation) -> None:
    """Return after *seconds*.

    Raises:
        ClientGoneError: the client left before.
    """
    await wait(Wakeup(), seconds, cancellation)
