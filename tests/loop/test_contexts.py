"""Which `contextvars` context code of servers runs in, and arguments given by name."""

from __future__ import annotations

import asyncio
import contextvars

import pytest

origin: contextvars.ContextVar[str] = contextvars.ContextVar("origin", default="nowhere")


async def test_connections_see_the_context_in_which_their_server_was_made(loop):
    async def note(reader, writer):
        seen.append(origin.get())
        writer.close()

    seen: list[str] = []
    origin.set("the server's maker")
    server = await asyncio.start_server(note, "127.0.0.1", 0)
    origin.set("somebody later")
    async with server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
    assert seen == ["the server's maker"]


async def test_what_a_factory_sets_stays_with_its_connection(loop):
    class Noting(asyncio.Protocol):
        def __init__(self):
            seen.append(f"factory: {origin.get()}")
            origin.set("the factory")

        def connection_made(self, transport):
            seen.append(f"made: {origin.get()}")
            transport.close()

    seen: list[str] = []
    server = await loop.create_server(Noting, "127.0.0.1", 0)
    async with server:
        for _ in range(2):
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()
    assert seen == ["factory: nowhere", "made: the factory"] * 2


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("call_soon", {}),
        ("call_soon_threadsafe", {}),
        ("call_later", {"delay": 0}),
        ("call_at", {"when": 0}),
    ],
)
async def test_callbacks_can_be_scheduled_with_arguments_by_name(loop, method, arguments):
    done = loop.create_future()

    def callback():
        done.set_result(origin.get())

    context = contextvars.copy_context()
    context.run(origin.set, "the given context")
    getattr(loop, method)(callback=callback, context=context, **arguments)
    assert await done == "the given context"
    with pytest.raises(TypeError, match="unexpected keyword argument 'other'"):
        getattr(loop, method)(callback=callback, other=1, **arguments)
    if arguments:
        with pytest.raises(TypeError):
            getattr(loop, method)(callback=callback)


async def test_a_delay_can_be_given_by_place_and_the_callback_by_name(loop):
    done = loop.create_future()
    loop.call_later(0, callback=lambda: done.set_result(None))
    await done
