"""One consumer of one group on one stream: the commands a worker needs, with plain answers.

Answers are read undecoded and decoded entry by entry, because one entry that is not text must not keep a
client from reading the others. Ids leave as text. Claims are guarded: see `_least_idle`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis
from redis.client import NEVER_DECODE
from redis.exceptions import ResponseError

# Takes over entries that nobody has touched for a while, without counting a delivery, and tells how often
# each was delivered: XAUTOCLAIM does not say.
# KEYS: stream; ARGV: group, consumer, idle milliseconds, cursor, greatest number of entries.
TAKE_OVER = """
local claimed =
    redis.call('XAUTOCLAIM', KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4], 'COUNT', ARGV[5], 'JUSTID')
local entries = {}
for _, id in ipairs(claimed[2]) do
    local pending = redis.call('XPENDING', KEYS[1], ARGV[1], id, id, 1)
    if #pending == 1 then entries[#entries + 1] = {id, pending[1][4]} end
end
return {claimed[1], entries, claimed[3] and #claimed[3] or 0}
"""

# Moves an entry that is still this consumer's to the dead-letter stream. Nothing is acknowledged before the
# copy exists. KEYS: stream, dead letters; ARGV: group, consumer, id, greatest length or 0, fields to add.
BURY = """
local pending = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[3], ARGV[3], 1, ARGV[2])
if #pending == 0 then return 'not ours' end
local found = redis.call('XRANGE', KEYS[1], ARGV[3], ARGV[3])
if #found == 0 then
    redis.call('XACK', KEYS[1], ARGV[1], ARGV[3])
    return 'gone'
end
local fields = {}
for index = 5, #ARGV do fields[#fields + 1] = ARGV[index] end
for _, value in ipairs(found[1][2]) do fields[#fields + 1] = value end
if ARGV[4] == '0' then
    redis.call('XADD', KEYS[2], '*', unpack(fields))
else
    redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[4], '*', unpack(fields))
end
redis.call('XACK', KEYS[1], ARGV[1], ARGV[3])
return 'buried'
"""

# Deletes a consumer that has nothing pending. KEYS: stream; ARGV: group, consumer.
LEAVE = """
if #redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 1, ARGV[2]) > 0 then return 0 end
redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
return 1
"""

PAGE = 500


@dataclass(frozen=True, slots=True)
class Pending:
    """An entry of this consumer that is not acknowledged."""

    id: str
    deliveries: int


Entry = tuple[str, dict[Any, Any]]


class Consumer:
    """The commands of one consumer."""

    def __init__(
        self,
        client: Redis,
        stream: str,
        group: str,
        name: str,
        *,
        start: str,
        claim_idle: float,
        delete: bool,
    ) -> None:
        self.client: Any = client
        self.stream = stream
        self.group = group
        self.name = name
        self._start = start
        self._claim_idle = claim_idle
        self._delete = delete
        self._cursor = "0-0"

    async def join(self) -> None:
        """Create stream and group where they are missing; the group begins where it did before."""
        if self._start == "$":
            # Remembered: a group that is lost must not skip what was added since it began.
            self._start = await self._last_id()
        try:
            await self.client.xgroup_create(self.stream, self.group, id=self._start, mkstream=True)
        except ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise

    async def _last_id(self) -> str:
        try:
            information = await self.client.xinfo_stream(self.stream)
        except ResponseError as error:
            if "no such key" not in str(error):
                raise
            return "0-0"
        return text(information["last-generated-id"])

    async def read(self, count: int, block: float) -> list[Entry]:
        """Wait up to `block` seconds for new entries."""
        words = ("GROUP", self.group, self.name, "COUNT", count, "BLOCK", max(1, round(block * 1000)))
        answer = await self._raw("XREADGROUP", *words, "STREAMS", self.stream, ">")
        if not answer:
            return []
        # [[stream, entries]], {stream: entries} or {stream: [entries]}: it depends on the protocol.
        entries = next(iter(answer.values())) if isinstance(answer, dict) else answer[0][1]
        if len(entries) == 1 and isinstance(entries[0], list):
            entries = entries[0]
        return [(text(id), fields) for id, fields in entries]

    async def take(self, entries: Iterable[tuple[str, float]]) -> list[Entry]:
        """Have entries delivered again, given as (id, seconds since Redis began to count idle time)."""
        answers = await asyncio.gather(
            *(
                self._raw("XCLAIM", self.stream, self.group, self.name, least_idle, *ids)
                for least_idle, ids in self._by_least_idle(entries)
            )
        )
        return [(text(id), fields) for answer in answers for id, fields in answer if id is not None]

    async def touch(self, entries: Iterable[tuple[str, float]]) -> set[str]:
        """Restart the idle time of entries that are being handled; return those that are still ours."""
        answers = await asyncio.gather(
            *(
                self.client.xclaim(self.stream, self.group, self.name, least_idle, ids, justid=True)
                for least_idle, ids in self._by_least_idle(entries)
            )
        )
        return {text(id) for answer in answers for id in answer}

    async def release(self, entries: Iterable[tuple[str, float, int | None]]) -> None:
        """Let others claim entries at once: (id, idle seconds, another count of deliveries or None)."""
        idle = round(self._claim_idle * 1000) + 1
        pipeline = self.client.pipeline(transaction=False)
        for id, elapsed, deliveries in entries:
            least_idle = self._least_idle(elapsed)
            pipeline.xclaim(
                self.stream,
                self.group,
                self.name,
                least_idle,
                [id],
                idle=idle,
                retrycount=deliveries,
                justid=True,
            )
        await pipeline.execute()

    def _by_least_idle(self, entries: Iterable[tuple[str, float]]) -> list[tuple[int, list[str]]]:
        grouped: dict[int, list[str]] = {}
        for id, elapsed in entries:
            grouped.setdefault(self._least_idle(elapsed), []).append(id)
        return [
            (least_idle, ids[start : start + PAGE])
            for least_idle, ids in grouped.items()
            for start in range(0, len(ids), PAGE)
        ]

    def _least_idle(self, elapsed: float) -> int:
        """Return for how long an entry must have been idle if it is still ours, in milliseconds.

        `elapsed` seconds ago Redis began to count. Others may claim it `claim_idle` seconds later at the
        earliest, and then Redis begins anew: the entry has been idle for less than `elapsed - claim_idle`.
        Half of `claim_idle` stays for clocks and networks.
        """
        return max(0, round((elapsed - self._claim_idle / 2) * 1000))

    async def take_over(self, count: int) -> tuple[list[Pending], int]:
        """Take over what has been idle for too long; return it, and how many entries had been trimmed."""
        arguments = (self.group, self.name, round(self._claim_idle * 1000), self._cursor, count)
        cursor, entries, trimmed = await self.client.eval(TAKE_OVER, 1, self.stream, *arguments)
        self._cursor = text(cursor)
        return [Pending(text(id), int(deliveries)) for id, deliveries in entries], int(trimmed)

    async def own_pending(self) -> list[Pending]:
        """List everything that is pending for this consumer."""
        found: list[Pending] = []
        first = "-"
        while True:
            page = await self.client.xpending_range(
                self.stream, self.group, min=first, max="+", count=PAGE, consumername=self.name
            )
            found += [Pending(text(one["message_id"]), int(one["times_delivered"])) for one in page]
            if len(page) < PAGE:
                return found
            first = f"({found[-1].id}"

    async def acknowledge(self, ids: Sequence[str]) -> int:
        """Acknowledge entries; return how many were still pending."""
        if not self._delete:
            return int(await self.client.xack(self.stream, self.group, *ids))
        pipeline = self.client.pipeline(transaction=True)
        pipeline.xack(self.stream, self.group, *ids)
        pipeline.xdel(self.stream, *ids)
        acknowledged, _ = await pipeline.execute()
        return int(acknowledged)

    async def bury(self, id: str, dead_letter: str, limit: int | None, notes: dict[str, Any]) -> str:
        """Move an entry to the dead-letter stream: "buried", "gone" (trimmed) or "not ours" any more."""
        pairs = [word for pair in notes.items() for word in pair]
        arguments = (self.stream, dead_letter, self.group, self.name, id, limit or 0, *pairs)
        return text(await self.client.eval(BURY, 2, *arguments))

    async def leave(self) -> None:
        """Delete this consumer if nothing is pending for it."""
        await self.client.eval(LEAVE, 1, self.stream, self.group, self.name)

    async def _raw(self, *words: Any) -> Any:
        return await self.client.execute_command(*words, **{NEVER_DECODE: []})


def text(value: Any) -> str:
    """Return what the client may or may not have decoded, decoded."""
    return value.decode() if isinstance(value, bytes) else str(value)
