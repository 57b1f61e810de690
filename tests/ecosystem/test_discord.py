"""discord.py against a local stand-in: a bot logs in, answers commands, loses its connection and leaves."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

discord = pytest.importorskip("discord", reason="discord.py cannot be had for this Python")
pytest.importorskip("aiohttp", reason="aiohttp, which serves the stand-in, cannot be had for this Python")
from discord.ext import commands, tasks  # noqa: E402
from discord_stand_in import TOKEN, StandIn, discord_stand_in  # noqa: E402
from yarl import URL  # noqa: E402

# It calls what newer Pythons deprecate.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:discord")

FILE = bytes(range(256)) * 4096


def new_bot() -> Any:
    intents = discord.Intents.default()
    intents.message_content = True
    bot = commands.Bot(command_prefix="!", intents=intents, guild_ready_timeout=0.01, help_command=None)

    @bot.command()
    async def add(context: Any, left: int, right: int) -> None:
        await context.reply(f"{left + right}")

    @bot.command()
    async def file(context: Any) -> None:
        async with context.typing():
            await context.send("here", file=discord.File(io.BytesIO(FILE), "file.bin"))

    @bot.command()
    async def wait(context: Any) -> None:
        # From now on, because the answer may be here before our message is confirmed.
        answer = bot.wait_for("message", check=lambda message: message.author == context.author)
        await context.send("for what?")
        await context.send(f"for {(await answer).content}")

    @bot.event
    async def on_command_error(context: Any, error: Exception) -> None:
        await context.send(type(error).__name__)

    return bot


@asynccontextmanager
async def online(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Any, StandIn]]:
    """Bring the bot online, and take it offline again."""
    async with discord_stand_in() as stand_in:
        monkeypatch.setattr(discord.http.Route, "BASE", stand_in.address + "/api")
        monkeypatch.setattr(
            discord.gateway.DiscordWebSocket,
            "DEFAULT_GATEWAY",
            URL(stand_in.address.replace("http", "ws") + "/gateway"),
        )
        bot = new_bot()
        async with asyncio.TaskGroup() as group, bot:
            group.create_task(bot.start(TOKEN))  # if it fails, so does the test
            await bot.wait_until_ready()
            yield bot, stand_in
            events = [task for task in asyncio.all_tasks() if task.get_name().startswith("discord.py: ")]
            await asyncio.gather(*events)  # what they sent was received, but not yet confirmed
        assert await stand_in.close_codes.get() in (1000, 4000)  # either half of the library may say it first


async def test_commands_are_answered(
    loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with online(monkeypatch) as (bot, stand_in):
        assert bot.user.name == "bot"
        assert [channel.name for channel in bot.get_all_channels()] == ["general"]
        await stand_in.say("!add 19 23")
        answer = await stand_in.received.get()
        assert answer["content"] == "42"
        assert answer["message_reference"]["message_id"] == 101
        await stand_in.say("!add 1 x")
        assert (await stand_in.received.get())["content"] == "BadArgument"
        await stand_in.say("!file")
        answer = await stand_in.received.get()
        assert (answer["content"], answer["files"]) == ("here", [FILE])
        await stand_in.say("!wait")
        assert (await stand_in.received.get())["content"] == "for what?"
        await stand_in.say("spring")
        assert (await stand_in.received.get())["content"] == "for spring"


async def test_many_messages_and_a_rate_limit(
    loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with online(monkeypatch) as (_, stand_in):
        stand_in.refuse_next = 2
        for number in range(100):
            await stand_in.say(f"!add {number} 0")
        answers = [await stand_in.received.get() for _ in range(100)]
        assert sorted(int(answer["content"]) for answer in answers) == list(range(100))
        assert stand_in.refuse_next == 0


async def test_a_lost_connection_is_resumed(
    loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with online(monkeypatch) as (_, stand_in):
        for number in range(3):
            stand_in.drop()
            await stand_in.say(f"!add {number} 0")  # while the bot is away
            assert (await stand_in.received.get())["content"] == str(number)
            assert await stand_in.close_codes.get() == 1006
        # READY, GUILD_CREATE; then a message and RESUMED each time.
        assert stand_in.sessions == ["identified", *(f"resumed after {n} of {n + 1}" for n in (2, 4, 6))]


async def test_beats_and_repeated_tasks(
    loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library beats from a thread of its own, through the loop."""
    times = 0

    @tasks.loop(seconds=0.01, count=3)
    async def repeated() -> None:
        nonlocal times
        times += 1

    async with online(monkeypatch) as (bot, stand_in):
        await repeated.start()
        assert times == 3
        for _ in range(4):
            await stand_in.beats.acquire()
        assert 0 < bot.latency < 20


async def test_a_wrong_token(loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    async with discord_stand_in() as stand_in, new_bot() as bot:
        monkeypatch.setattr(discord.http.Route, "BASE", stand_in.address + "/api")
        with pytest.raises(discord.LoginFailure):
            await bot.start("another token")
