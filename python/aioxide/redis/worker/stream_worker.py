"""`StreamWorker`: a handler, run for every event of one or more streams on behalf of a consumer group.

Each event is delivered at least once: it is acknowledged after the handler has returned, never before. What
can be delivered twice, and when, is in docs/redis-workers.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import signal
import socket
import uuid
from collections.abc import AsyncIterator, Iterable, Sequence
from types import TracebackType
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import (
    AuthenticationError,
    ClusterDownError,
    ReadOnlyError,
    ResponseError,
    TryAgainError,
)

from ..._backoff import Backoff
from .client import connect
from .consumer import Consumer
from .dispatcher import Dispatcher, Handler
from .options import Options
from .source import TROUBLE, Source, log
from .statistics import Statistics
from .stop_signals import calling

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
# Answers of a server, when a worker begins, that waiting does not change; and among them those that it does.
REFUSALS = (AuthenticationError, ResponseError)
PASSING = (ClusterDownError, ReadOnlyError, TryAgainError)
PASSING_ANSWERS = ("BUSY ", "UNBLOCKED", "FAILOVER", "LOADING", "MASTERDOWN")
# How long the last words to the server may take when the worker ends.
FAREWELL_SECONDS = 5.0


class StreamWorker:
    """Run `handler` for the events of `streams`, as one consumer of `group`.

    >>> async def handle(event):
    ...     print(event.id, event.fields)
    >>> worker = StreamWorker("redis://localhost", "orders", "billing", handle)
    >>> await worker.run()  # until SIGTERM, Ctrl-C, or worker.stop()
    """

    def __init__(
        self,
        client: Redis | str,
        streams: str | Iterable[str],
        group: str,
        handler: Handler,
        *,
        consumer: str | None = None,
        concurrency: int = 10,
        batch: int | None = None,
        timeout: float | None = None,
        max_deliveries: int | None = 5,
        retry_delay: float = 1.0,
        dead_letter: str | None = "{stream}:dead",
        dead_letter_limit: int | None = None,
        claim_idle: float = 30.0,
        block: float = 2.0,
        start: str = "0",
        delete: bool = False,
        decode: bool | None = None,
        grace: float = 25.0,
        stop_signals: Sequence[signal.Signals] = STOP_SIGNALS,
    ) -> None:
        """Take the options; nothing happens before `run`.

        client: a client, which stays the caller's, or an address, for which the worker makes one.
        streams: the name of the stream, or of several.
        handler: a coroutine function. It is given an Event, or a list of them with `batch`.
        consumer: this worker's name in the group. Without one it gets one of its own, deleted in the end;
            with one that stays the same, what it left is found again as soon as it starts.
        concurrency: how many calls of the handler run at once.
        batch: give the handler lists, of at most so many events.
        timeout: seconds after which a call is cancelled and counts as failed.
        max_deliveries: after so many an event is given up; None never gives up.
        retry_delay: seconds before an event that failed is delivered again; doubled each time.
        dead_letter: the stream for events that are given up; None drops them. `{stream}` is their stream.
        dead_letter_limit: about how many dead letters to keep; None keeps all.
        claim_idle: seconds without a sign of life after which the others take over what a worker had.
        block: seconds that one question for new events may wait at the server.
        start: where a group begins that does not exist yet: "0" the beginning, "$" the end, or an id.
        delete: delete events from the stream once they are acknowledged.
        decode: give text, not bytes. By default as the client does; with an address, text.
        grace: seconds for running calls to end when the worker is asked to stop.
        stop_signals: signals that ask it to stop while `run` runs, in the main thread.
        """
        self._streams = [streams] if isinstance(streams, str) else list(dict.fromkeys(streams))
        if not self._streams:
            raise ValueError("a worker needs a stream")
        if not callable(handler):
            raise TypeError(f"the handler is no function: {handler!r}")
        self._client = client
        self._group = group
        self._handler = handler
        self._is_named = consumer is not None
        self.consumer = consumer or f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        encoder: Any = None if isinstance(client, str) else client.get_encoder()
        self._options = Options(
            concurrency=concurrency,
            batch=batch,
            timeout=timeout,
            block=block,
            claim_idle=claim_idle,
            max_deliveries=max_deliveries,
            retry_delay=retry_delay,
            dead_letter=dead_letter,
            dead_letter_limit=dead_letter_limit,
            start=start,
            delete=delete,
            grace=grace,
            decode=decode if decode is not None else encoder is None or encoder.decode_responses,
            encoding="utf-8" if encoder is None else encoder.encoding,
            encoding_errors="strict" if encoder is None else encoder.encoding_errors,
        )
        self._stop_signals = stop_signals
        self._statistics = Statistics()
        self._sources: list[Source] = []
        self._dispatcher: Dispatcher | None = None
        self._has_begun = False
        self._stop_asked = asyncio.Event()
        self._hurry = asyncio.Event()
        self._background: asyncio.Task[None] | None = None

    def statistics(self) -> dict[str, int]:
        """Return what this worker has counted, and what it holds now."""
        dispatcher = self._dispatcher
        return {
            **dataclasses.asdict(self._statistics),
            "running": dispatcher.running if dispatcher else 0,
            "held": sum(len(source.held) for source in self._sources),
            "waiting_for_retry": sum(len(source.backlog) for source in self._sources),
        }

    def stop(self) -> None:
        """Ask the worker to read no more and to end when its calls have; asked again, it cancels them."""
        if self._stop_asked.is_set():
            self._hurry.set()
        self._stop_asked.set()

    async def __aenter__(self) -> StreamWorker:
        """Run in the background; signals are left alone."""
        self._stop_signals = ()
        self._background = asyncio.get_running_loop().create_task(
            self.run(), name=f"StreamWorker {self.consumer}"
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop, and wait until it has."""
        assert self._background is not None
        self.stop()
        try:
            await self._background
        except BaseException:
            self._background.cancel()
            raise

    async def run(self) -> None:
        """Handle events until asked to stop; cancelled, cancel the calls that run and end at once."""
        if self._has_begun:
            raise RuntimeError("a StreamWorker runs once; make another one")
        self._has_begun = True
        async with self._connected() as client:
            with calling(self.stop, self._stop_signals):
                await self._run(client)

    @contextlib.asynccontextmanager
    async def _connected(self) -> AsyncIterator[Redis]:
        if isinstance(self._client, str):
            async with connect(self._client) as client:
                yield client
        else:
            yield self._client

    async def _run(self, client: Redis) -> None:
        options = self._options
        self._dispatcher = dispatcher = Dispatcher(
            self._handler, concurrency=options.concurrency, batch=options.batch, timeout=options.timeout
        )
        for stream in self._streams:
            consumer = Consumer(
                client,
                stream,
                self._group,
                self.consumer,
                start=options.start,
                claim_idle=options.claim_idle,
                delete=options.delete,
            )
            self._sources.append(Source(consumer, dispatcher, options, self._statistics))
        if not await self._join_all():
            return
        loop = asyncio.get_running_loop()
        reading = [loop.create_task(work) for source in self._sources for work in source.tasks()]
        lasting = [loop.create_task(work) for source in self._sources for work in source.lasting_tasks()]
        log.info("%s: working for %s on %s", self.consumer, self._group, ", ".join(self._streams))
        try:
            await self._first_of(self._stop_asked.wait(), *reading, *lasting, dispatcher.fatal)
            log.info("%s: stopping", self.consumer)
            await _end(reading)
            async with asyncio.timeout(options.grace):
                with contextlib.suppress(*TROUBLE):
                    await self._release(running=False)
                await self._first_of(dispatcher.wait_until_idle(), self._hurry.wait(), *lasting)
        except TimeoutError:
            log.warning("%s: %d calls run longer than %g s", self.consumer, dispatcher.running, options.grace)
        finally:
            await _end(reading)
            await self._farewell(lasting)

    async def _join_all(self) -> bool:
        """Create what is missing, waiting for a server that is not there yet; tell whether to go on."""
        backoff = Backoff(self._options.reconnect_delay, self._options.longest_reconnect_delay)
        while not self._stop_asked.is_set():
            try:
                for source in self._sources:
                    await source.consumer.join()
            except TROUBLE as error:
                is_passing = isinstance(error, PASSING) or str(error).startswith(PASSING_ANSWERS)
                if isinstance(error, REFUSALS) and not is_passing:
                    raise
                self._statistics.errors += 1
                delay = backoff.next()
                log.warning(
                    "%s: %s: %s; again in %.1f s", self.consumer, type(error).__name__, str(error), delay
                )
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stop_asked.wait(), delay)
            else:
                return True
        return False

    async def _first_of(self, *awaitables: Any) -> None:
        """Wait for the first to end; if it failed, raise what it raised."""
        given = [asyncio.ensure_future(one) for one in awaitables]
        ours = [future for future, one in zip(given, awaitables, strict=True) if future is not one]
        try:
            done, _ = await asyncio.wait(given, return_when=asyncio.FIRST_COMPLETED)
            for one in done:
                one.result()
        finally:
            await _end(ours)

    async def _release(self, *, running: bool) -> None:
        """Give back what has not begun, or everything."""
        assert self._dispatcher is not None
        self._dispatcher.take_waiting()
        for source in self._sources:
            await source.release(running=running)

    async def _farewell(self, lasting: list[asyncio.Task[None]]) -> None:
        """Cancel what still runs, acknowledge what is done, give back the rest."""
        assert self._dispatcher is not None
        self._dispatcher.cancel()
        try:
            async with asyncio.timeout(FAREWELL_SECONDS):
                await self._dispatcher.wait_until_idle()
        except TimeoutError:
            log.warning("%s: %d calls do not end although cancelled", self.consumer, self._dispatcher.running)
        try:
            async with asyncio.timeout(FAREWELL_SECONDS):
                await _end(lasting)
                for source in self._sources:
                    await source.settle_all()
                await self._release(running=True)
                if not self._is_named:
                    for source in self._sources:
                        await source.consumer.leave()
        except TimeoutError:
            log.warning("%s: ends without a farewell: it takes too long", self.consumer)
        except TROUBLE as error:
            log.warning(
                "%s: ends without a farewell: %s: %s", self.consumer, type(error).__name__, str(error)
            )
        finally:
            await _end(lasting)
            log.info("%s: stopped: %s", self.consumer, self.statistics())


async def _end(tasks: Iterable[asyncio.Future[Any]]) -> None:
    """Cancel tasks and wait until they have ended."""
    tasks = list(tasks)
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled():
            # Asked for, so that it is not reported as an exception that nobody saw.
            task.exception()
