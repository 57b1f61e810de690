"""Runs the handler: so many calls at a time, each with one event or a batch, each in a task of its own.

# Invariants
- Never more than `concurrency` calls run at once, whatever is offered.
- An entry that was delivered before runs by itself, not in a batch: what fails again is then known.
- Every entry that is offered leaves by exactly one of its owner's `succeeded`, `failed` and `abandoned`,
  or by `take_waiting`.
"""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from .events import Event, EventsFailed

Handler = Callable[[Any], Awaitable[Any]]


class Owner(Protocol):
    """Where an entry came from, which is told what became of it."""

    def succeeded(self, held: Held) -> None:
        """Note that the handler returned."""

    def failed(self, held: Held, error: BaseException) -> None:
        """Note that the handler raised."""

    def abandoned(self, held: Held) -> None:
        """Note that the handler was cancelled because the worker stops."""


@dataclass(slots=True, eq=False)
class Held:
    """An entry in this process: waiting for a free place, being handled, or not yet acknowledged."""

    event: Event
    owner: Owner
    # When Redis last began to count its idle time.
    touched: float
    # Not new: taken from the backlog.
    is_recovered: bool = False
    has_started: bool = False
    # Another consumer has it now, or the stream has it no more.
    is_lost: bool = False


class Dispatcher:
    """The places in which handlers run."""

    def __init__(
        self, handler: Handler, *, concurrency: int, batch: int | None, timeout: float | None
    ) -> None:
        self._handler = handler
        self._concurrency = concurrency
        self._batch = batch
        self._timeout = timeout
        self._waiting: deque[Held] = deque()
        self._calls: set[asyncio.Task[None]] = set()
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._is_idle = asyncio.Event()
        self._is_idle.set()
        self._is_ending = False
        # Set when the handler is no coroutine function: a mistake of the program, which no retry mends.
        self.fatal: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.capacity = concurrency * (batch or 1)

    @property
    def running(self) -> int:
        """Return how many calls run."""
        return len(self._calls)

    def room(self) -> int:
        """Return how many more events could run at once; small batches take places, too."""
        free = self._concurrency - len(self._calls)
        return max(0, free * (self._batch or 1) - len(self._waiting))

    async def wait_for_room(self) -> int:
        """Wait until at least one more event could run, and return how many."""
        while not (room := self.room()):
            self._has_room.clear()
            await self._has_room.wait()
        return room

    async def wait_until_idle(self) -> None:
        """Wait until no call runs."""
        await self._is_idle.wait()

    def offer(self, entries: Iterable[Held]) -> None:
        """Run the handler for entries as soon as there are places."""
        self._waiting.extend(entries)
        if self._waiting:
            self._is_idle.clear()
            self._start_calls()

    def take_waiting(self) -> list[Held]:
        """Start nothing more, and give back what has not started."""
        self._is_ending = True
        waiting = list(self._waiting)
        self._waiting.clear()
        self._note_progress()
        return waiting

    def cancel(self) -> None:
        """Cancel the calls that run."""
        self._is_ending = True
        for call in self._calls:
            call.cancel()

    def _start_calls(self) -> None:
        while self._waiting and len(self._calls) < self._concurrency and not self._is_ending:
            batch = self._next_batch()
            for held in batch:
                held.has_started = True
            name = f"{batch[0].event.stream} {batch[0].event.id}"
            call = asyncio.get_running_loop().create_task(self._call(batch), name=name)
            self._calls.add(call)
            call.add_done_callback(self._ended)

    def _next_batch(self) -> list[Held]:
        first = self._waiting.popleft()
        batch = [first]
        if first.event.deliveries == 1:
            while (
                self._waiting
                and len(batch) < (self._batch or 1)
                and self._waiting[0].owner is first.owner
                and self._waiting[0].event.deliveries == 1
            ):
                batch.append(self._waiting.popleft())
        return batch

    async def _call(self, batch: list[Held]) -> None:
        try:
            async with asyncio.timeout(self._timeout):
                given = [held.event for held in batch] if self._batch else batch[0].event
                called = self._handler(given)
                if not inspect.isawaitable(called):
                    raise NotAsynchronousError(f"the handler is no coroutine function: {self._handler!r}")
                await called
        except EventsFailed as failure:
            self._split(batch, failure)
        except NotAsynchronousError as mistake:
            for held in batch:
                held.owner.abandoned(held)
            if not self.fatal.done():
                self.fatal.set_exception(mistake)

        except asyncio.CancelledError as error:
            if self._is_ending:
                for held in batch:
                    held.owner.abandoned(held)
                raise
            # The handler's own doing: it awaited something that was cancelled.
            for held in batch:
                held.owner.failed(held, error)
        except Exception as error:
            for held in batch:
                held.owner.failed(held, error)
        else:
            for held in batch:
                held.owner.succeeded(held)

    def _split(self, batch: list[Held], failure: EventsFailed) -> None:
        """Tell the failed events of a batch from the others."""
        unknown = failure.errors.keys() - {held.event.id for held in batch}
        for held in batch:
            # A name that fits no event says that the handler is mixed up: then nothing is taken as done.
            error = failure if unknown else failure.errors.get(held.event.id)
            if error is None:
                held.owner.succeeded(held)
            else:
                held.owner.failed(held, error)

    def _ended(self, call: asyncio.Task[None]) -> None:
        self._calls.discard(call)
        if not call.cancelled():
            # What is no `Exception` has ended the loop already. Asked for, it is not reported again.
            call.exception()
        self._start_calls()
        self._note_progress()

    def _note_progress(self) -> None:
        if self.room():
            self._has_room.set()
        if not self._calls and not self._waiting:
            self._is_idle.set()


class NotAsynchronousError(TypeError):
    """The handler returned something that cannot be awaited."""
