"""One stream of a worker: where entries come from, and what becomes of them afterwards.

Four tasks share the state: `read_new` asks for new entries, `recover` for entries that were delivered before,
`refresh` keeps others from claiming what is being handled, `settle` acknowledges and buries.

# Invariants
- `held` has every entry of this process that is neither given back nor confirmed as settled by Redis.
- An id is in at most one of `held` and `backlog`.
- Whatever is in neither is pending in Redis, where its idle time grows until somebody takes it over.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from redis.exceptions import RedisError, ResponseError

from ..._backoff import Backoff, delay_after
from .backlog import Backlog, Waiting
from .consumer import Consumer
from .dispatcher import Dispatcher, Held
from .events import Event, Reject
from .options import Options
from .statistics import Statistics

log = logging.getLogger("aioxide.redis.worker")

# What goes wrong between a worker and a server, or inside the server.
TROUBLE = (RedisError, OSError)
# Reading pauses while so many entries are handled but not yet confirmed as acknowledged.
UNSETTLED_LIMIT = 5000
# At most so many seconds pass before a worker looks for what others have left.
LOOK_SECONDS = 5.0
REASON_LENGTH = 1000


class Source:
    """One stream, read as one consumer of its group."""

    def __init__(
        self, consumer: Consumer, dispatcher: Dispatcher, options: Options, statistics: Statistics
    ) -> None:
        self.consumer = consumer
        self.held: dict[str, Held] = {}
        self.backlog = Backlog()
        self._dispatcher = dispatcher
        self._options = options
        self._statistics = statistics
        self._loop = asyncio.get_running_loop()
        self._done: dict[str, Held] = {}
        # With the reason, and not with the exception: that would keep the frames of a call alive.
        self._doomed: dict[str, tuple[Held, str]] = {}
        self._unsettled = asyncio.Event()
        self._something_due = asyncio.Event()
        # There may be entries that Redis delivered to this consumer and this process does not know.
        self._may_have_unknown = True
        self._reading = asyncio.Lock()
        self._recovered = 0

    def tasks(self) -> list[Coroutine[Any, Any, None]]:
        """Return what runs until the worker stops reading."""
        return [self._repeat(self._recover), self._repeat(self._read_new)]

    def lasting_tasks(self) -> list[Coroutine[Any, Any, None]]:
        """Return what runs for as long as anything is held."""
        return [self._repeat(self._refresh), self._repeat(self._settle)]

    async def _repeat(self, step: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Take one step after the other; after trouble with Redis wait a while, longer each time."""
        backoff = Backoff(self._options.reconnect_delay, self._options.longest_reconnect_delay)
        task = asyncio.current_task()
        while task is None or not task.cancelling():
            try:
                await step()
            except TROUBLE as error:
                await self._endure(error, backoff)
            else:
                backoff.reset()
        # A step that had what it waited for took no notice, as asyncio.wait_for up to Python 3.11.
        raise asyncio.CancelledError

    async def _endure(self, error: BaseException, backoff: Backoff) -> None:
        """Say what is wrong, wait, and see to it that the group exists again."""
        self._statistics.errors += 1
        delay = backoff.next()
        log.warning("%s: %s: %s; again in %.1f s", self._title, type(error).__name__, str(error), delay)
        await asyncio.sleep(delay)
        if isinstance(error, ResponseError) and str(error).startswith(("NOGROUP", "UNBLOCKED")):
            with contextlib.suppress(*TROUBLE):
                # In vain, it is missed again in the next step.
                await self.consumer.join()

    @property
    def _title(self) -> str:
        return f"{self.consumer.stream} as {self.consumer.name} of {self.consumer.group}"

    async def _read_new(self) -> None:
        room = await self._dispatcher.wait_for_room()
        while len(self._done) + len(self._doomed) > UNSETTLED_LIMIT:
            await asyncio.sleep(self._options.reconnect_delay)
        async with self._reading:
            try:
                entries = await self.consumer.read(room, self._options.block)
            except BaseException:
                self._expect_unknown()
                raise
        now = self._loop.time()
        self._statistics.read += len(entries)
        self._accept([(Waiting(now, id, 0, now), fields) for id, fields in entries], is_recovered=False)

    async def _recover(self) -> None:
        if self._may_have_unknown:
            # What a read is about to bring is unknown, too: none may be under way.
            async with self._reading:
                await self._find_own()
            self._may_have_unknown = False
        await self._take_over()
        look_again = self._loop.time() + min(self._options.claim_idle / 4, LOOK_SECONDS)
        while (now := self._loop.time()) < look_again and not self._may_have_unknown:
            self._something_due.clear()
            if await self._take_due():
                continue
            due = self.backlog.next_due()
            # Without room for what is due, the end of a call wakes this up.
            wake_at = look_again if due is None or due <= now else min(look_again, due)
            try:
                async with asyncio.timeout_at(wake_at):
                    await self._something_due.wait()
            except TimeoutError:
                pass

    def _expect_unknown(self) -> None:
        self._may_have_unknown = True
        self._something_due.set()

    async def _find_own(self) -> None:
        """Find what an earlier process of this name left, or what was lost on its way here."""
        pending = await self.consumer.own_pending()
        now = self._loop.time()
        for one in pending:
            if one.id not in self.held:
                # As if it were touched now, it can be claimed at once: it is ours at this moment.
                found = self.backlog.add(Waiting(now, one.id, one.deliveries, now))
                self._statistics.recovered += found

    async def _take_over(self) -> None:
        """Take over what others have left, as much as there is room for."""
        room = self._dispatcher.capacity - self._recovered
        if room <= 0:
            return
        taken, trimmed = await self.consumer.take_over(room)
        now = self._loop.time()
        self._statistics.trimmed += trimmed
        for one in taken:
            if one.id not in self.held:
                claimed = self.backlog.add(Waiting(now, one.id, one.deliveries, now))
                self._statistics.claimed += claimed

    async def _take_due(self) -> bool:
        """Have entries of the backlog delivered again; tell whether there were any."""
        now = self._loop.time()
        due = self.backlog.take_due(now, self._dispatcher.capacity - self._recovered)
        if not due and not self._recovered:
            due = self.backlog.take_suspect()
        if not due:
            return False
        limit = self._options.max_deliveries
        again = {}
        for waiting in due:
            if limit is not None and waiting.deliveries >= limit:
                self._doom_unseen(waiting)
            else:
                again[waiting.id] = waiting
        try:
            entries = await self.consumer.take((one.id, now - one.touched) for one in again.values())
        except BaseException:
            # Redis may have delivered them all the same. What it has not is found again like what it has.
            self._expect_unknown()
            raise
        now = self._loop.time()
        delivered = []
        for id, fields in entries:
            waiting = again.pop(id)
            waiting.touched = now
            delivered.append((waiting, fields))
        self._accept(delivered, is_recovered=True)
        # Others have claimed these, or acknowledged them, or they were trimmed.
        self._statistics.lost += len(again)
        return True

    def _accept(self, delivered: list[tuple[Waiting, dict[Any, Any]]], *, is_recovered: bool) -> None:
        """Hold entries that were just delivered, and have them handled."""
        accepted = []
        for waiting, fields in delivered:
            if waiting.id in self.held:
                continue
            self.backlog.discard(waiting.id)
            error: UnicodeDecodeError | None = None
            try:
                fields = self._options.decoded(fields)
            except UnicodeDecodeError as undecodable:
                error = undecodable
            event = Event(self.consumer.stream, waiting.id, fields, waiting.deliveries + 1)
            held = Held(event, self, waiting.touched, is_recovered)
            self.held[event.id] = held
            self._recovered += is_recovered
            if error is None:
                accepted.append(held)
            else:
                self.failed(held, Reject(f"{type(error).__name__}: {error}"))
        self._dispatcher.offer(accepted)

    def succeeded(self, held: Held) -> None:
        """Acknowledge an entry, together with those that succeed in the same turn."""
        self._statistics.succeeded += 1
        self._done[held.event.id] = held
        self._count_out(held)
        self._unsettled.set()

    def failed(self, held: Held, error: BaseException) -> None:
        """Have an entry delivered again later, or bury it."""
        event = held.event
        log.warning(
            "%s: %s failed (delivery %d): %s: %s",
            self._title,
            event.id,
            event.deliveries,
            type(error).__name__,
            str(error),
            exc_info=None if isinstance(error, Reject) else error,
        )
        self._statistics.failed += 1
        self._count_out(held)
        limit = self._options.max_deliveries
        reason = f"{type(error).__name__}: {error}"[:REASON_LENGTH]
        if isinstance(error, Reject) or (limit is not None and event.deliveries >= limit):
            self._doomed[event.id] = (held, reason)
            self._unsettled.set()
            return
        del self.held[event.id]
        if held.is_lost:
            return
        delay = delay_after(event.deliveries - 1, self._options.retry_delay, self._options.claim_idle)
        self.backlog.add(Waiting(self._loop.time() + delay, event.id, event.deliveries, held.touched, reason))
        self._something_due.set()

    def abandoned(self, held: Held) -> None:
        """Keep an entry whose call was cancelled until it is given back with the rest."""
        self._count_out(held)

    def _count_out(self, held: Held) -> None:
        """Make room for the next recovered entry."""
        if held.is_recovered:
            self._recovered -= 1
            self._something_due.set()

    def _doom_unseen(self, waiting: Waiting) -> None:
        """Bury an entry that was delivered too often, without its being handled once more."""
        event = Event(self.consumer.stream, waiting.id, {}, waiting.deliveries)
        reason = waiting.reason or f"delivered {waiting.deliveries} times, never acknowledged"
        held = Held(event, self, waiting.touched)
        self.held[event.id] = held
        self._doomed[event.id] = (held, reason)
        self._unsettled.set()

    async def _settle(self) -> None:
        await self._unsettled.wait()
        self._unsettled.clear()
        await self.settle_all()

    async def settle_all(self) -> None:
        """Acknowledge what has succeeded and bury what is doomed."""
        try:
            while self._done or self._doomed:
                await self._acknowledge_done()
                await self._bury_doomed()
        except BaseException:
            self._unsettled.set()
            raise

    async def _acknowledge_done(self) -> None:
        if ids := list(self._done):
            acknowledged = await self.consumer.acknowledge(ids)
            self._statistics.acknowledged += acknowledged
            for id in ids:
                del self._done[id]
                del self.held[id]

    async def _bury_doomed(self) -> None:
        for id, (held, reason) in list(self._doomed.items()):
            event = held.event
            if self._options.dead_letter is None:
                log.error("%s: %s is dropped: %s", self._title, id, reason)
                await self.consumer.acknowledge([id])
                self._statistics.dropped += 1
            else:
                notes = {
                    "dead-letter-reason": reason,
                    "dead-letter-stream": event.stream,
                    "dead-letter-id": id,
                    "dead-letter-group": self.consumer.group,
                    "dead-letter-consumer": self.consumer.name,
                    "dead-letter-deliveries": event.deliveries,
                }
                target = self._options.dead_letter_of(event.stream)
                what = await self.consumer.bury(id, target, self._options.dead_letter_limit, notes)
                if what == "buried":
                    log.error("%s: %s goes to %s: %s", self._title, id, target, reason)
                    self._statistics.dead_lettered += 1
                elif what == "gone":
                    self._statistics.trimmed += 1
                else:
                    self._statistics.lost += 1
            del self._doomed[id]
            del self.held[id]

    async def _refresh(self) -> None:
        """Restart the idle time of what is held, long before others may claim it."""
        interval = self._options.claim_idle / 4
        await asyncio.sleep(interval)
        now = self._loop.time()
        old = [held for held in self.held.values() if now - held.touched >= interval and not held.is_lost]
        if not old:
            return
        ours = await self.consumer.touch((held.event.id, now - held.touched) for held in old)
        now = self._loop.time()
        for held in old:
            if held.event.id in ours:
                held.touched = now
            elif held.event.id in self.held and held.event.id not in self._done:
                log.warning("%s: %s was claimed by another, or trimmed", self._title, held.event.id)
                # The call goes on, and whoever succeeds first acknowledges it.
                held.is_lost = True
                self._statistics.lost += 1

    async def release(self, *, running: bool) -> None:
        """Let others claim what this consumer still has, at once; what is being handled only if `running`."""
        now = self._loop.time()
        entries: dict[str, tuple[str, float, int | None]] = {}
        kept = self._done.keys() | self._doomed.keys()
        for id, held in self.held.items():
            if held.is_lost or (held.has_started and not running):
                kept.add(id)
            elif id not in kept:
                # What was not handled is given back as if it had not been delivered.
                deliveries = None if held.has_started else held.event.deliveries - 1
                entries[id] = (id, now - held.touched, deliveries)
        for waiting in self.backlog.clear():
            entries[waiting.id] = (waiting.id, now - waiting.touched, None)
        # What was on its way here when reading stopped is known to Redis alone.
        for one in await self.consumer.own_pending():
            if one.id not in entries and one.id not in kept:
                entries[one.id] = (one.id, 0.0, 0 if one.deliveries == 1 else None)
        if entries:
            await self.consumer.release(entries.values())
            self._statistics.released += len(entries)
        for id in entries:
            self.held.pop(id, None)
