"""Make every new event loop of the process an aioxide loop.

Below Python 3.14 this is an event loop policy, the documented way. From 3.14 setting a policy
warns, and from 3.16 there are none, so there the function that `asyncio.Runner` calls for its loop
is replaced. A program that names another loop itself (a `loop_factory`, a policy) keeps it.
"""

from __future__ import annotations

import asyncio
import asyncio.events
import sys
import warnings
from collections.abc import Callable

from .loop import EventLoop

LoopFactory = Callable[[], asyncio.AbstractEventLoop]


def use_everywhere(factory: LoopFactory) -> None:
    """Let `asyncio.run`, `asyncio.Runner` and `asyncio.new_event_loop` create their loops with `factory`."""
    if sys.version_info < (3, 14):
        _set_policy(factory)
    else:
        _replace_new_event_loop(factory)


def install() -> None:
    """Make aioxide the loop of every later `asyncio.run` in this process; prefer `aioxide.run`."""
    if sys.version_info >= (3, 14):
        warnings.warn(
            "aioxide.install() ends with event loop policies in Python 3.16; "
            "use aioxide.run() or asyncio.Runner(loop_factory=aioxide.new_event_loop)",
            DeprecationWarning,
            stacklevel=2,
        )
    use_everywhere(EventLoop)


if sys.version_info < (3, 14):

    def _set_policy(factory: LoopFactory) -> None:
        class Policy(asyncio.DefaultEventLoopPolicy):
            def new_event_loop(self) -> asyncio.AbstractEventLoop:
                return factory()

        asyncio.set_event_loop_policy(Policy())


_asyncio_new_event_loop = asyncio.events.new_event_loop


def _replace_new_event_loop(factory: LoopFactory) -> None:
    def new_event_loop() -> asyncio.AbstractEventLoop:
        """Create an event loop."""
        if _policy_is_the_programs_own():
            return _asyncio_new_event_loop()
        return factory()

    # `asyncio.Runner` looks the name up in `asyncio.events`, programs in `asyncio` itself.
    asyncio.events.new_event_loop = new_event_loop
    asyncio.new_event_loop = new_event_loop


def _policy_is_the_programs_own() -> bool:
    # CPython 3.14, Lib/asyncio/events.py: None until a policy is set or the default one is first needed.
    policy = getattr(asyncio.events, "_event_loop_policy", None)
    return policy is not None and not type(policy).__module__.startswith("asyncio.")
