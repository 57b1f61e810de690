"""Subscriptions: channels that are queues of messages, filled by one reader on a connection of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any

from redis.exceptions import RedisError

from ..client import Redis as Client
from .errors import ChannelClosedError

Decoder = Callable[[Any], Any]


def as_name(name: bytes | str | Channel) -> bytes:
    """Return a channel's name as bytes."""
    if isinstance(name, Channel):
        return name.name
    return name.encode() if isinstance(name, str) else bytes(name)


class Channel:
    """The messages of one channel, or of the channels that match a pattern."""

    def __init__(self, name: bytes | str, is_pattern: bool = False, loop: Any = None) -> None:
        self.name = name.encode() if isinstance(name, str) else bytes(name)
        self.is_pattern = is_pattern
        self._messages: deque[Any] = deque()
        self._changed = asyncio.Event()
        self._is_subscribed = True
        self._error: BaseException | None = None

    def __repr__(self) -> str:
        return f"<Channel {self.name!r}, {len(self._messages)} messages>"

    @property
    def is_active(self) -> bool:
        """Tell whether there are messages, or there may still come some."""
        return self._is_subscribed or bool(self._messages)

    async def wait_message(self) -> bool:
        """Wait until there is a message; False when none will come any more."""
        while not self._messages and self._is_subscribed:
            self._changed.clear()
            await self._changed.wait()
        return bool(self._messages)

    async def get(self, *, encoding: str | None = None, decoder: Decoder | None = None) -> Any:
        """Return the next message, with its channel's name if this is a pattern; None when none will come."""
        if not self.is_active:
            if self._error is not None:
                raise self._error
            raise ChannelClosedError
        if not await self.wait_message():
            return None
        channel, data = self._messages.popleft()
        if encoding is not None:
            data = data.decode(encoding)
        if decoder is not None:
            data = decoder(data)
        return (channel, data) if self.is_pattern else data

    async def get_json(self, encoding: str = "utf-8") -> Any:
        """Return the next message, which is JSON."""
        return await self.get(encoding=encoding, decoder=json.loads)

    async def iter(
        self, *, encoding: str | None = None, decoder: Decoder | None = None
    ) -> AsyncIterator[Any]:
        """Return the messages one by one until the channel is unsubscribed."""
        while await self.wait_message():
            yield await self.get(encoding=encoding, decoder=decoder)

    def put(self, channel: bytes, data: bytes) -> None:
        """Add a message."""
        self._messages.append((channel, data))
        self._changed.set()

    def close(self, error: BaseException | None = None) -> None:
        """Say that no more will come."""
        self._is_subscribed = False
        self._error = error
        self._changed.set()


class Subscriptions:
    """What one client has subscribed."""

    def __init__(self, client: Client) -> None:
        self._pubsub: Any = client.pubsub()
        self.channels: dict[bytes, Channel] = {}
        self.patterns: dict[bytes, Channel] = {}
        self._awaited: dict[tuple[str, bytes], asyncio.Future[None]] = {}
        self._reader: asyncio.Task[None] | None = None

    async def subscribe(self, *names: bytes | str | Channel, is_pattern: bool = False) -> list[Channel]:
        """Subscribe; return the channels when the server has confirmed them all."""
        known = self.patterns if is_pattern else self.channels
        subscribed = []
        for name in names:
            key = as_name(name)
            if isinstance(name, Channel) and name.is_pattern != is_pattern:
                raise ValueError(f"{name!r} is of the other kind")
            channel = known.setdefault(key, name if isinstance(name, Channel) else Channel(key, is_pattern))
            subscribed.append(channel)
        await self._command("psubscribe" if is_pattern else "subscribe", [one.name for one in subscribed])
        return subscribed

    async def unsubscribe(self, *names: bytes | str | Channel, is_pattern: bool = False) -> list[Channel]:
        """Unsubscribe; return the channels, from which what has arrived can still be taken."""
        known = self.patterns if is_pattern else self.channels
        keys = [as_name(name) for name in names if as_name(name) in known]
        if keys:
            await self._command("punsubscribe" if is_pattern else "unsubscribe", keys)
        left = [known.pop(key) for key in keys]
        for channel in left:
            channel.close()
        return left

    async def _command(self, kind: str, names: list[bytes]) -> None:
        loop = asyncio.get_running_loop()
        awaited = [self._awaited.setdefault((kind, name), loop.create_future()) for name in names]
        await getattr(self._pubsub, kind)(*names)
        if self._reader is None:
            self._reader = loop.create_task(self._read())
        await asyncio.gather(*awaited)

    async def _read(self) -> None:
        error: BaseException | None = None
        try:
            while True:
                message = await self._pubsub.get_message(timeout=None)
                if message is not None:
                    self._handle(message)
        except RedisError as problem:
            error = problem
        finally:
            for channel in (*self.channels.values(), *self.patterns.values()):
                channel.close(error)
            for awaited in self._awaited.values():
                if not awaited.done():
                    awaited.set_exception(error or ChannelClosedError())
                    # Whoever asked may be gone.
                    awaited.exception()

    def _handle(self, message: dict[str, Any]) -> None:
        kind, name = message["type"], message["channel"]
        if kind == "message" and name in self.channels:
            self.channels[name].put(name, message["data"])
        elif kind == "pmessage" and message["pattern"] in self.patterns:
            self.patterns[message["pattern"]].put(name, message["data"])
        elif (awaited := self._awaited.pop((kind, name), None)) is not None and not awaited.done():
            awaited.set_result(None)

    async def close(self) -> None:
        """End everything that is subscribed."""
        if self._reader is not None:
            self._reader.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reader
        await self._pubsub.aclose()
