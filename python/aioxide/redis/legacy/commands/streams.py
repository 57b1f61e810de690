"""Streams and their consumer groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..replies import as_dict, as_dicts, as_messages, as_messages_of_streams, ok
from .sending import Key, Result, Sending, integer


class StreamCommands(Sending):
    """Commands on streams."""

    def xadd(
        self,
        stream: Key,
        fields: Mapping[Any, Any],
        message_id: Any = b"*",
        max_len: int | None = None,
        exact_len: bool = False,
    ) -> Result:
        """Add a message; return its id."""
        pairs = (word for pair in fields.items() for word in pair)
        return self._do("XADD", stream, *_longest(max_len, exact_len), message_id, *pairs)

    def xrange(self, stream: Key, start: Any = "-", stop: Any = "+", count: int | None = None) -> Result:
        """Return messages: [(id, fields), ...]."""
        return self._do("XRANGE", stream, start, stop, *_counted(count), to=as_messages)

    def xrevrange(self, stream: Key, start: Any = "+", stop: Any = "-", count: int | None = None) -> Result:
        """Return messages from the newest: [(id, fields), ...]."""
        return self._do("XREVRANGE", stream, start, stop, *_counted(count), to=as_messages)

    def xread(
        self,
        streams: Sequence[Key],
        timeout: int | None = 0,
        count: int | None = None,
        latest_ids: Sequence[Any] | None = None,
    ) -> Result:
        """Wait for messages, 0 for ever, None not at all: [(stream, id, fields), ...]."""
        words = _reading(streams, timeout, count, latest_ids, "$")
        return self._do("XREAD", *words, to=as_messages_of_streams)

    def xread_group(
        self,
        group_name: Any,
        consumer_name: Any,
        streams: Sequence[Key],
        timeout: int | None = 0,
        count: int | None = None,
        latest_ids: Sequence[Any] | None = None,
        no_ack: bool = False,
    ) -> Result:
        """Wait for messages of a group, new ones with latest_ids=[">"]: [(stream, id, fields), ...]."""
        words = _reading(streams, timeout, count, latest_ids, "$", no_ack)
        return self._do("XREADGROUP", "GROUP", group_name, consumer_name, *words, to=as_messages_of_streams)

    def xgroup_create(
        self, stream: Key, group_name: Any, latest_id: Any = "$", mkstream: bool = False
    ) -> Result:
        """Create a group."""
        words = ["MKSTREAM"] if mkstream else []
        return self._do("XGROUP", "CREATE", stream, group_name, latest_id, *words, to=ok)

    def xgroup_setid(self, stream: Key, group_name: Any, latest_id: Any = "$") -> Result:
        """Set where a group goes on."""
        return self._do("XGROUP", "SETID", stream, group_name, latest_id, to=ok)

    def xgroup_destroy(self, stream: Key, group_name: Any) -> Result:
        """Delete a group; tell whether there was one."""
        return self._do("XGROUP", "DESTROY", stream, group_name, to=ok)

    def xgroup_delconsumer(self, stream: Key, group_name: Any, consumer_name: Any) -> Result:
        """Delete a consumer; return how many messages were pending."""
        return self._do("XGROUP", "DELCONSUMER", stream, group_name, consumer_name, to=int)

    def xpending(
        self,
        stream: Key,
        group_name: Any,
        start: Any = None,
        stop: Any = None,
        count: int | None = None,
        consumer: Any = None,
    ) -> Result:
        """Return what is pending: a summary, or with start, stop and count the messages."""
        given = [one is not None for one in (start, stop, count)]
        if any(given) and not all(given):
            raise ValueError("either specify none or all of the start, stop and count arguments")
        words = [start, stop, count] if all(given) else []
        return self._do("XPENDING", stream, group_name, *words, *([] if consumer is None else [consumer]))

    def xclaim(
        self, stream: Key, group_name: Any, consumer_name: Any, min_idle_time: int, id: Any, *ids: Any
    ) -> Result:
        """Take messages over: [(id, fields), ...]."""
        words = (stream, group_name, consumer_name, min_idle_time, id, *ids)
        return self._do("XCLAIM", *words, to=as_messages)

    def xack(self, stream: Key, group_name: Any, id: Any, *ids: Any) -> Result:
        """Acknowledge messages; return how many were pending."""
        return self._do("XACK", stream, group_name, id, *ids)

    def xdel(self, stream: Key, id: Any, *ids: Any) -> Result:
        """Delete messages; return how many there were."""
        return self._do("XDEL", stream, id, *ids)

    def xtrim(self, stream: Key, max_len: int, exact_len: bool = False) -> Result:
        """Delete the oldest messages; return how many."""
        return self._do("XTRIM", stream, *_longest(max_len, exact_len))

    def xlen(self, stream: Key) -> Result:
        """Return how many messages there are."""
        return self._do("XLEN", stream)

    def xinfo(self, stream: Key) -> Result:
        """Return what there is to know about a stream."""
        return self.xinfo_stream(stream)

    def xinfo_stream(self, stream: Key) -> Result:
        """Return what there is to know about a stream."""
        return self._do("XINFO", "STREAM", stream, to=as_dict)

    def xinfo_groups(self, stream: Key) -> Result:
        """Return the groups of a stream."""
        return self._do("XINFO", "GROUPS", stream, to=as_dicts)

    def xinfo_consumers(self, stream: Key, group_name: Any) -> Result:
        """Return the consumers of a group."""
        return self._do("XINFO", "CONSUMERS", stream, group_name, to=as_dicts)


def _counted(count: int | None) -> list[Any]:
    return [] if count is None else ["COUNT", count]


def _longest(max_len: int | None, exact_len: bool) -> list[Any]:
    if max_len is None:
        return []
    return ["MAXLEN", max_len] if exact_len else ["MAXLEN", "~", max_len]


def _reading(
    streams: Sequence[Key],
    timeout: int | None,
    count: int | None,
    latest_ids: Sequence[Any] | None,
    default: str,
    no_ack: bool = False,
) -> list[Any]:
    ids = [default] * len(streams) if latest_ids is None else list(latest_ids)
    if len(ids) != len(streams):
        raise ValueError("the streams and latest_ids parameters must be of the same length")
    block = [] if timeout is None else ["BLOCK", integer("timeout", timeout)]
    return [*_counted(count or None), *block, *(["NOACK"] if no_ack else []), "STREAMS", *streams, *ids]
