"""What becomes of raw replies: decoded where an encoding is given, and brought into aioredis 1's shapes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

Convert = Callable[[Any], Any]


def decoded(reply: Any, encoding: str | None) -> Any:
    """Decode every bytes object in a reply."""
    if encoding is None:
        return reply
    if isinstance(reply, bytes):
        return reply.decode(encoding)
    if isinstance(reply, list):
        return [decoded(one, encoding) for one in reply]
    return reply


def ok(reply: Any) -> bool:
    """Tell whether the server said OK; False for nil, as of SET with a condition."""
    return reply in (b"OK", "OK") or reply == 1


def as_text(reply: Any) -> str:
    """Return a reply as text."""
    return reply.decode() if isinstance(reply, bytes) else str(reply)


def as_float(reply: Any) -> float | None:
    """Return a number that arrived as text; None for nil."""
    return None if reply is None else float(reply)


def as_score(reply: Any) -> int | float | None:
    """Return a score, as an integer where it is one; None for nil."""
    if reply is None:
        return None
    try:
        return int(reply)
    except ValueError:
        return float(reply)


def as_pairs(reply: list[Any]) -> list[tuple[Any, Any]]:
    """Return a flat list as pairs."""
    return list(zip(reply[::2], reply[1::2], strict=True))


def as_dict(reply: list[Any]) -> dict[Any, Any]:
    """Return a flat list of names and values as a dictionary."""
    return dict(as_pairs(reply))


def as_scored(reply: list[Any]) -> list[tuple[Any, Any]]:
    """Return a flat list of members and scores as pairs."""
    return [(member, as_score(score)) for member, score in as_pairs(reply)]


def scanned(convert: Convert = list) -> Convert:
    """Return a converter of the reply to a SCAN: (cursor, what was found)."""
    return lambda reply: (int(reply[0]), convert(reply[1]))


def as_messages(reply: list[Any] | None) -> list[tuple[Any, Any]]:
    """Return the entries of a stream as (id, fields in their order)."""
    return [
        (None, OrderedDict()) if entry is None else (entry[0], OrderedDict(as_pairs(entry[1] or [])))
        for entry in reply or []
    ]


def as_messages_of_streams(reply: list[Any] | None) -> list[tuple[Any, Any, Any]]:
    """Return the entries of several streams as (stream, id, fields)."""
    return [(stream, id, fields) for stream, entries in reply or [] for id, fields in as_messages(entries)]


def as_dicts(reply: list[Any]) -> list[dict[Any, Any]]:
    """Return flat lists as dictionaries."""
    return [as_dict(one) for one in reply]


def as_information(reply: Any) -> dict[str, dict[str, str]]:
    """Return the reply to INFO by section and name."""
    sections: dict[str, dict[str, str]] = {}
    section: dict[str, str] = {}
    for line in as_text(reply).splitlines():
        if line.startswith("# "):
            section = sections.setdefault(line[2:].strip().lower(), {})
        elif ":" in line:
            name, value = line.split(":", 1)
            section[name] = value
    return sections
