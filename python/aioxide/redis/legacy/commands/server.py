"""The server, connections, and messages published."""

from __future__ import annotations

import asyncio
from collections import namedtuple
from typing import Any

from ..connection import UNSET, Encoding
from ..replies import as_dict, as_information, as_text, ok
from .sending import Result, Sending


class ServerCommands(Sending):
    """Commands on the server as a whole."""

    def ping(self, message: Any = UNSET, *, encoding: Encoding = UNSET) -> Result:
        """Return b"PONG", or the message."""
        return self._do("PING", *(() if message is UNSET else (message,)), encoding=encoding)

    def echo(self, message: Any, *, encoding: Encoding = UNSET) -> Result:
        """Return the message."""
        return self._do("ECHO", message, encoding=encoding)

    def publish(self, channel: Any, message: Any) -> asyncio.Future[int]:
        """Send a message to a channel; return how many received it."""
        return self._do("PUBLISH", channel, message)

    def pubsub_channels(self, pattern: Any = None) -> Result:
        """Return the channels that somebody has subscribed."""
        return self._do("PUBSUB", "CHANNELS", *(() if pattern is None else (pattern,)))

    def pubsub_numsub(self, *channels: Any) -> Result:
        """Return how many have subscribed channels, by channel."""
        return self._do("PUBSUB", "NUMSUB", *channels, to=as_dict)

    def pubsub_numpat(self) -> Result:
        """Return how many patterns are subscribed."""
        return self._do("PUBSUB", "NUMPAT")

    def dbsize(self) -> Result:
        """Return how many keys there are."""
        return self._do("DBSIZE")

    def flushdb(self, async_op: bool = False) -> Result:
        """Delete all keys of this database."""
        return self._do("FLUSHDB", *(("ASYNC",) if async_op else ()), to=ok)

    def flushall(self, async_op: bool = False) -> Result:
        """Delete all keys of all databases."""
        return self._do("FLUSHALL", *(("ASYNC",) if async_op else ()), to=ok)

    def info(self, section: Any = "default") -> Result:
        """Return what the server says of itself: {section: {name: value}}."""
        return self._do("INFO", section, encoding="utf-8", to=as_information)

    def time(self) -> Result:
        """Return the server's time in seconds since the epoch."""
        return self._do("TIME", encoding=None, to=lambda reply: int(reply[0]) + int(reply[1]) / 1_000_000)

    def lastsave(self) -> Result:
        """Return when data was last saved."""
        return self._do("LASTSAVE")

    def save(self) -> Result:
        """Save data, while everybody waits."""
        return self._do("SAVE", to=ok)

    def bgsave(self) -> Result:
        """Begin to save data."""
        return self._do("BGSAVE", to=lambda reply: as_text(reply).startswith("Background saving started"))

    def config_get(self, parameter: Any = "*") -> Result:
        """Return settings by name."""
        return self._do("CONFIG", "GET", parameter, encoding="utf-8", to=as_dict)

    def config_set(self, parameter: Any, value: Any) -> Result:
        """Change a setting."""
        return self._do("CONFIG", "SET", parameter, value, to=ok)

    def config_resetstat(self) -> Result:
        """Begin to count anew."""
        return self._do("CONFIG", "RESETSTAT", to=ok)

    def role(self) -> Result:
        """Return whether this is a master or a replica, and of whom."""
        return self._do("ROLE")

    def client_list(self) -> Result:
        """Return who is connected, with attributes named as the server names them."""
        return self._do("CLIENT", "LIST", encoding="utf-8", to=_clients)

    def client_setname(self, name: Any) -> Result:
        """Name this connection."""
        return self._do("CLIENT", "SETNAME", name, to=ok)

    def client_getname(self, encoding: Encoding = UNSET) -> Result:
        """Return the name of this connection."""
        return self._do("CLIENT", "GETNAME", encoding=encoding)


def _clients(reply: Any) -> list[Any]:
    rows = [
        {
            name.replace("-", "_"): value
            for name, _, value in (word.partition("=") for word in line.split(" "))
        }
        for line in as_text(reply).splitlines()
    ]
    return [namedtuple("Client", row.keys(), rename=True)(*row.values()) for row in rows]
