#!/usr/bin/env python3
"""A chat room with a bot that answers, and a maintenance job that never gets in its way.

Members send lines. A line that starts with "!" is for the bot; every other line goes to all other members.
In the background a maintenance job sleeps, wakes up, shows silent members the door, and sleeps again, while
the bot keeps answering: awaiting is what makes room for the others.

Without options a crowd of members comes to visit, asks many questions at once, verifies every answer, and
leaves. With --serve the room stays open until Ctrl-C: talk to it with `nc 127.0.0.1 PORT`.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field

import loops
from report import Report, Stopwatch, progress

HOST = "127.0.0.1"
LONGEST_LINE = 4096
SLOWEST_READER = 256 * 1024
PATIENCE = 30.0
HELP = "I understand !help, !who, !name NAME, !echo TEXT, !roll and !quit."


@dataclass(eq=False)
class Member:
    """One connection, and what the room knows of it."""

    name: str
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    last_heard: float = field(default_factory=time.monotonic)

    def say(self, line: str) -> None:
        """Send a line without waiting; somebody who does not read loses the connection."""
        if self.writer.transport.get_write_buffer_size() > SLOWEST_READER:
            self.writer.transport.abort()
        elif not self.writer.is_closing():
            self.writer.write(f"{line}\n".encode())


class Room:
    """The chat room: its members, its bot and its maintenance job."""

    def __init__(self, patience: float) -> None:
        self.patience = patience
        self.members: set[Member] = set()
        self.handlers: set[asyncio.Task[None]] = set()
        self.arrivals = 0
        self.lateness: list[float] = []

    async def welcome(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection from its first line to its last."""
        self.arrivals += 1
        member = Member(f"guest-{self.arrivals}", reader, writer)
        self.members.add(member)
        if task := asyncio.current_task():
            self.handlers.add(task)
            task.add_done_callback(self.handlers.discard)
        try:
            member.say(f"Welcome, {member.name}. {HELP}")
            await self.listen(member)
        except ConnectionError:
            # Gone without a word.
            pass
        finally:
            self.members.discard(member)
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def listen(self, member: Member) -> None:
        """Pass on or answer every line of a member until it leaves."""
        while True:
            try:
                line = await member.reader.readline()
            except ValueError:
                member.say("That line is too long for me. Goodbye.")
                return
            if not line or member.writer.is_closing():
                return
            member.last_heard = time.monotonic()
            text = line.decode(errors="replace").strip()
            if text == "!quit":
                member.say("Goodbye.")
                return
            if text.startswith("!"):
                member.say(self.answer(member, text))
                await member.writer.drain()
            else:
                self.broadcast(member, text)

    def answer(self, member: Member, question: str) -> str:
        """Answer as the bot."""
        word, _, rest = question.partition(" ")
        match word:
            case "!echo":
                return rest
            case "!name" if rest:
                member.name = rest
                return f"You are {rest} now."
            case "!who":
                return ", ".join(sorted(other.name for other in self.members))
            case "!roll":
                return f"{member.name} rolls {random.randint(1, 6)}."
        return HELP

    def broadcast(self, sender: Member, text: str) -> None:
        """Send a line to everybody but its sender."""
        for member in self.members:
            if member is not sender:
                member.say(f"{sender.name}: {text}")

    async def maintain(self, every: float) -> None:
        """Sleep, wake, show silent members the door, and sleep again."""
        while True:
            due = time.monotonic() + every
            await asyncio.sleep(every)
            now = time.monotonic()
            self.lateness.append(now - due)
            for member in list(self.members):
                if now - member.last_heard > self.patience:
                    member.say("You are very quiet. Goodbye.")
                    member.writer.close()
                # One member at a time: a long list must not keep the others waiting.
                await asyncio.sleep(0)

    async def close(self) -> None:
        """Say goodbye to everybody and wait until all have left."""
        for member in list(self.members):
            member.say("The room closes. Goodbye.")
            member.writer.close()
        await asyncio.gather(*self.handlers, return_exceptions=True)


class Visitor:
    """A member of the crowd that visits the room and checks what it hears."""

    def __init__(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.name = f"visitor-{number:03}"
        self.reader = reader
        self.writer = writer
        self.waits: list[float] = []
        self.wrong_answers = 0

    async def ask(self, line: str) -> str:
        """Send a line and read one back."""
        self.writer.write(f"{line}\n".encode())
        await self.writer.drain()
        return await self.hear()

    async def hear(self) -> str:
        """Read one line."""
        return (await self.reader.readline()).decode().rstrip("\n")

    async def introduce(self) -> None:
        """Read the welcome and take a name."""
        await self.hear()
        await self.ask(f"!name {self.name}")

    async def question(self, amount: int) -> None:
        """Ask the bot many questions and compare every answer."""
        for number in range(amount):
            asked = time.perf_counter()
            if await self.ask(f"!echo {self.name} asks {number}") != f"{self.name} asks {number}":
                self.wrong_answers += 1
            self.waits.append(time.perf_counter() - asked)

    async def leave(self) -> bool:
        """Say goodbye; return whether the room said it too and closed."""
        answer = await self.ask("!quit")
        return answer == "Goodbye." and await self.reader.read() == b""


@asynccontextmanager
async def connection(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Connect to the room, and hang up in the end."""
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def visit(port: int, room: Room, options: argparse.Namespace, report: Report) -> None:
    """Fill the room with visitors, and with one who says nothing."""
    async with AsyncExitStack() as stack:
        sleeper, _ = await stack.enter_async_context(connection(port))
        visitors = [
            Visitor(number, *await stack.enter_async_context(connection(port)))
            for number in range(options.visitors)
        ]
        print(f"  {len(visitors)} visitors enter the room", flush=True)
        await talk(visitors, room, options, report)
        heard = (await sleeper.read()).decode().splitlines()
    last = heard[-1:]
    report.check(last == ["You are very quiet. Goodbye."], f"the silent visitor last heard {last}")
    report.milliseconds("maintenance woke late, worst", max(room.lateness))


async def talk(visitors: list[Visitor], room: Room, options: argparse.Namespace, report: Report) -> None:
    """Let visitors talk, verify all they hear, and measure how fast the bot answers."""
    await asyncio.gather(*(visitor.introduce() for visitor in visitors))

    for visitor in visitors:
        visitor.writer.write(b"hello\n")
    for visitor in visitors:
        greetings = {await visitor.hear() for _ in range(len(visitors) - 1)}
        expected = {f"{other.name}: hello" for other in visitors if other is not visitor}
        report.check(
            greetings == expected, f"{visitor.name} heard {len(greetings & expected)} of {len(expected)}"
        )

    wakes_before = len(room.lateness)
    questions = options.visitors * options.questions
    with progress(f"{options.visitors} visitors ask the bot", questions) as advance, Stopwatch() as watch:

        async def one(visitor: Visitor) -> None:
            await visitor.question(options.questions)
            advance(options.questions)

        async with asyncio.TaskGroup() as group:
            for visitor in visitors:
                group.create_task(one(visitor))
    wakes = len(room.lateness) - wakes_before
    for visitor in visitors:
        report.check(visitor.wrong_answers == 0, f"{visitor.name} got {visitor.wrong_answers} wrong answers")
    farewells = await asyncio.gather(*(visitor.leave() for visitor in visitors))
    report.check(all(farewells), f"{farewells.count(False)} visitors were not let go properly")
    # Fewer would mean that the answers kept the maintenance job from waking; much slack for a busy machine.
    enough = watch.seconds / options.every / 10 - 1
    report.check(wakes >= enough, f"maintenance woke {wakes} times in {watch.seconds:.2f} s")

    waits = sorted(wait for visitor in visitors for wait in visitor.waits)
    report.rate("answers", questions, watch.seconds, "answers")
    report.milliseconds("wait for an answer, median", waits[len(waits) // 2])
    report.milliseconds("wait for an answer, 99 of 100", waits[len(waits) * 99 // 100])


async def bot(options: argparse.Namespace, report: Report) -> None:
    """Open the room, keep it clean, and serve or be visited."""
    room = Room(options.patience)
    server = await asyncio.start_server(room.welcome, HOST, options.port, limit=LONGEST_LINE)
    maintenance = asyncio.create_task(room.maintain(options.every))
    port = server.sockets[0].getsockname()[1]
    try:
        if options.serve:
            print(f"The room is open: nc {HOST} {port}", flush=True)
            await maintenance
        else:
            async with asyncio.timeout(PATIENCE):
                await visit(port, room, options, report)
    finally:
        server.close()
        maintenance.cancel()
        await room.close()
        await server.wait_closed()
        await asyncio.wait([maintenance])
    report.check(not room.members, f"{len(room.members)} members were left behind")


def main() -> int:
    """Read the options and open the room."""
    parser = loops.option_parser(__doc__)
    parser.add_argument("--serve", action="store_true", help="keep the room open until Ctrl-C")
    parser.add_argument("--port", type=int, default=0, help="the port to listen on (default: any free one)")
    parser.add_argument(
        "--visitors", type=loops.positive, default=50, metavar="N", help="in the crowd (%(default)s)"
    )
    parser.add_argument(
        "--questions", type=loops.positive, default=200, metavar="N", help="of each (%(default)s)"
    )
    parser.add_argument(
        "--every", type=float, default=0.05, metavar="SECONDS", help="of maintenance (%(default)s)"
    )
    parser.add_argument(
        "--patience", type=float, metavar="SECONDS", help="with silence (1; 600 with --serve)"
    )
    options = parser.parse_args()
    if options.patience is None:
        options.patience = 600.0 if options.serve else 1.0
    return loops.run(bot, options, "bot")


if __name__ == "__main__":
    sys.exit(main())
