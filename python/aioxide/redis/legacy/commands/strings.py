"""Strings, and bits of them."""

from __future__ import annotations

from typing import Any

from ..connection import UNSET, Encoding
from ..replies import as_float, ok
from .sending import Key, Result, Sending, integer, number


class StringCommands(Sending):
    """Commands on strings."""

    SET_IF_NOT_EXIST = "SET_IF_NOT_EXIST"
    SET_IF_EXIST = "SET_IF_EXIST"

    def set(
        self, key: Key, value: Any, *, expire: float = 0, pexpire: int = 0, exist: str | None = None
    ) -> Result:
        """Set a value; True, or False when `exist` forbade it."""
        words: list[Any] = []
        if expire and isinstance(expire, float):
            words += ["PX", int(expire * 1000)]
        elif expire:
            words += ["EX", integer("expire", expire)]
        if pexpire:
            words += ["PX", integer("pexpire", pexpire)]
        if exist is not None:
            words.append({self.SET_IF_EXIST: "XX", self.SET_IF_NOT_EXIST: "NX"}[exist])
        return self._do("SET", key, value, *words, to=ok)

    def setex(self, key: Key, seconds: float, value: Any) -> Result:
        """Set a value that expires after seconds."""
        if isinstance(seconds, float):
            return self.psetex(key, int(seconds * 1000), value)
        return self._do("SETEX", key, integer("seconds", seconds), value, to=ok)

    def psetex(self, key: Key, milliseconds: int, value: Any) -> Result:
        """Set a value that expires after milliseconds."""
        return self._do("PSETEX", key, integer("milliseconds", milliseconds), value, to=ok)

    def setnx(self, key: Key, value: Any) -> Result:
        """Set a value if there is none; tell whether it was set."""
        return self._do("SETNX", key, value, to=bool)

    def get(self, key: Key, *, encoding: Encoding = UNSET) -> Result:
        """Return a value, or None."""
        return self._do("GET", key, encoding=encoding)

    def getset(self, key: Key, value: Any, *, encoding: Encoding = UNSET) -> Result:
        """Set a value and return the former one."""
        return self._do("GETSET", key, value, encoding=encoding)

    def mget(self, key: Key, *keys: Key, encoding: Encoding = UNSET) -> Result:
        """Return the values of keys."""
        return self._do("MGET", key, *keys, encoding=encoding)

    def mset(self, *arguments: Any) -> Result:
        """Set many: key, value, key, value, or one dictionary."""
        return self._do("MSET", *_pairs(arguments), to=ok)

    def msetnx(self, key: Key, value: Any, *pairs: Any) -> Result:
        """Set many, if none of them exists; tell whether they were set."""
        return self._do("MSETNX", *_pairs((key, value, *pairs)))

    def append(self, key: Key, value: Any) -> Result:
        """Append to a value; return its length."""
        return self._do("APPEND", key, value)

    def strlen(self, key: Key) -> Result:
        """Return the length of a value."""
        return self._do("STRLEN", key)

    def getrange(self, key: Key, start: int, end: int, *, encoding: Encoding = UNSET) -> Result:
        """Return a part of a value."""
        return self._do("GETRANGE", key, integer("start", start), integer("end", end), encoding=encoding)

    def setrange(self, key: Key, offset: int, value: Any) -> Result:
        """Replace a part of a value; return its length."""
        if integer("offset", offset) < 0:
            raise ValueError("offset must be greater equal 0")
        return self._do("SETRANGE", key, offset, value)

    def incr(self, key: Key) -> Result:
        """Add one; return the sum."""
        return self._do("INCR", key)

    def decr(self, key: Key) -> Result:
        """Subtract one; return the difference."""
        return self._do("DECR", key)

    def incrby(self, key: Key, increment: int) -> Result:
        """Add; return the sum."""
        return self._do("INCRBY", key, integer("increment", increment))

    def decrby(self, key: Key, decrement: int) -> Result:
        """Subtract; return the difference."""
        return self._do("DECRBY", key, integer("decrement", decrement))

    def incrbyfloat(self, key: Key, increment: float) -> Result:
        """Add a fraction; return the sum."""
        return self._do("INCRBYFLOAT", key, number("increment", increment), to=as_float)

    def setbit(self, key: Key, offset: int, value: int) -> Result:
        """Set a bit; return the former one."""
        if value not in (0, 1):
            raise ValueError("value argument must be either 1 or 0")
        return self._do("SETBIT", key, integer("offset", offset), int(value))

    def getbit(self, key: Key, offset: int) -> Result:
        """Return a bit."""
        return self._do("GETBIT", key, integer("offset", offset))

    def bitcount(self, key: Key, start: int | None = None, end: int | None = None) -> Result:
        """Return how many bits are set."""
        if (start is None) != (end is None):
            raise TypeError("both start and stop must be specified, or none of them")
        return self._do("BITCOUNT", key, *(() if start is None else (start, end)))

    def bitpos(self, key: Key, bit: int, start: int | None = None, end: int | None = None) -> Result:
        """Return where the first bit of this kind is."""
        if bit not in (0, 1):
            raise ValueError("bit argument must be either 1 or 0")
        where = [] if start is None else [start]
        if end is not None:
            where = [start or 0, end]
        return self._do("BITPOS", key, int(bit), *where)

    def bitop_and(self, dest: Key, key: Key, *keys: Key) -> Result:
        """Store the bits that all have; return the length."""
        return self._do("BITOP", "AND", dest, key, *keys)

    def bitop_or(self, dest: Key, key: Key, *keys: Key) -> Result:
        """Store the bits that any has; return the length."""
        return self._do("BITOP", "OR", dest, key, *keys)

    def bitop_xor(self, dest: Key, key: Key, *keys: Key) -> Result:
        """Store the bits that an odd number have; return the length."""
        return self._do("BITOP", "XOR", dest, key, *keys)

    def bitop_not(self, dest: Key, key: Key) -> Result:
        """Store the opposite bits; return the length."""
        return self._do("BITOP", "NOT", dest, key)


def _pairs(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(arguments) == 1:
        if not isinstance(arguments[0], dict):
            raise TypeError("if one argument is given, it must be a dict")
        arguments = tuple(word for pair in arguments[0].items() for word in pair)
    if not arguments or len(arguments) % 2:
        raise TypeError("keys and values come in pairs")
    return arguments
