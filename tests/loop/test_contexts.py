"""Which `contextvars` context code of servers runs in, and arguments given by name."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import socket
import weakref

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


# Handles share what they can of their contexts, and nobody must notice.

SCHEDULING = {
    "call_soon": lambda loop, callback: loop.call_soon(callback),
    "call_soon_threadsafe": lambda loop, callback: loop.call_soon_threadsafe(callback),
    "call_later": lambda loop, callback: loop.call_later(0.001, callback),
    "debug": lambda loop, callback: loop.call_soon(callback),
}


@pytest.fixture(params=SCHEDULING)
def schedule(loop, request):
    """A way to have a callback called."""
    loop.set_debug(request.param == "debug")
    yield lambda callback: SCHEDULING[request.param](loop, callback)
    loop.set_debug(False)


async def turns(loop, done):
    """Let callbacks run until `done` of them did."""
    async with asyncio.timeout(5):
        while not done():
            await asyncio.sleep(0)


async def test_each_callback_sees_the_variables_of_the_moment_it_was_scheduled(loop, schedule):
    seen: list[str] = []
    for text in ("a", "a", "b", "b", "a"):
        origin.set(text)
        schedule(lambda: seen.append(origin.get()))
    origin.set("later")
    await turns(loop, lambda: len(seen) == 5)
    assert sorted(seen) == ["a", "a", "a", "b", "b"]


@pytest.mark.parametrize("is_held", [True, False])
async def test_what_a_callback_sets_is_its_own(loop, schedule, is_held):
    def set_and_note():
        seen.append(origin.get())
        origin.set("another")
        # What it schedules is of its own context.
        loop.call_soon(lambda: nested.append(origin.get()))

    seen: list[str] = []
    nested: list[str] = []
    origin.set("here")
    handles = [schedule(set_and_note) for _ in range(4)]
    if not is_held:
        handles.clear()
    await turns(loop, lambda: len(nested) == 4)
    assert seen == ["here"] * 4
    assert nested == ["another"] * 4
    assert origin.get() == "here"


@pytest.mark.skipif(not hasattr(asyncio.Handle, "get_context"), reason="Python 3.12 brought it")
async def test_a_handle_has_a_context_of_its_own(loop, schedule):
    seen: list[str] = []
    origin.set("here")

    def note():
        seen.append(origin.get())
        origin.set("noted")

    handles = [schedule(note) for _ in range(3)]
    contexts = [handle.get_context() for handle in handles[:2]]
    assert contexts[0] is not contexts[1]
    assert contexts[0] is handles[0].get_context()
    # It is the very one in which the callback will run.
    contexts[0].run(origin.set, "changed")
    await turns(loop, lambda: len(seen) == 3)
    assert sorted(seen) == ["changed", "here", "here"]
    ran_in = [handle.get_context() for handle in handles]
    assert [context[origin] for context in ran_in] == ["noted"] * 3
    assert ran_in[:2] == contexts


@pytest.mark.parametrize("is_kept", [True, False])
async def test_a_token_is_of_no_use_to_another_callback(loop, schedule, is_kept):
    """Though callbacks that set nothing run in one context after the other."""
    tokens: list[contextvars.Token[str]] = []
    seen: list[str] = []

    def set_and_take_back():
        token = origin.set("set")
        origin.reset(token)
        again = origin.set("again")
        if is_kept:
            tokens.append(again)
        else:
            origin.reset(again)

    def note():
        seen.append(origin.get())
        for token in tokens:
            with pytest.raises(ValueError, match="different Context"):
                origin.reset(token)

    for callback in (note, set_and_take_back, note, set_and_take_back, note):
        schedule(callback)
    await turns(loop, lambda: len(seen) == 3)
    assert seen == ["nowhere"] * 3


@pytest.mark.skipif(not hasattr(asyncio.Handle, "get_context"), reason="Python 3.12 brought it")
async def test_a_report_tells_the_context_in_which_a_callback_failed(loop, schedule, reported):
    def fail():
        origin.set("failed")
        raise ValueError

    for _ in range(3):
        schedule(fail)
    await turns(loop, lambda: len(reported) == 3)
    contexts = [report["handle"].get_context() for report in reported]
    assert [context[origin] for context in contexts] == ["failed"] * 3
    assert len(set(map(id, contexts))) == 3
    reported.clear()


async def test_a_variables_value_goes_with_the_last_callback(loop, schedule):
    class Value:
        pass

    def make():
        value = Value()
        held.set(value)
        schedule(lambda: ran.append(True))
        schedule(lambda: ran.append(True)).cancel()
        return weakref.ref(value)

    held: contextvars.ContextVar[Value] = contextvars.ContextVar("held")
    ran: list[bool] = []
    reference = contextvars.copy_context().run(make)
    await turns(loop, lambda: ran)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    gc.collect()
    assert reference() is None


async def test_many_waiting_callbacks_need_few_contexts(loop, is_aioxide):
    def count():
        return sum(type(object) is contextvars.Context for object in gc.get_objects())

    before = count()
    handles = [loop.call_soon(int) for _ in range(500)] + [loop.call_later(60, int) for _ in range(500)]
    assert count() - before < (10 if is_aioxide else 1001)
    for handle in handles:
        handle.cancel()


class Remembering(asyncio.Protocol):
    """Answers with what its variable was, sets it to what came, and takes that back when told to."""

    def __init__(self):
        self.token = None

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(origin.get().encode() + b"\n")
        if data == b"reset\n":
            origin.reset(self.token)
        else:
            self.token = origin.set(data.decode().strip())


async def test_what_a_protocol_sets_it_finds_and_no_other_connection_does(loop):
    server = await loop.create_server(Remembering, "127.0.0.1", 0)
    async with server:
        peers = [await asyncio.open_connection(*server.sockets[0].getsockname()) for _ in range(3)]
        for word, answers in [
            ("{}", ["nowhere"] * 3),
            ("again {}", ["0", "1", "2"]),
            ("reset", ["again 0", "again 1", "again 2"]),
            ("last {}", ["0", "1", "2"]),
        ]:
            seen = []
            for number, (reader, writer) in enumerate(peers):
                writer.write(word.format(number).encode() + b"\n")
                seen.append((await reader.readline()).decode().strip())
            assert seen == answers
        for _, writer in peers:
            writer.close()
            await writer.wait_closed()


async def test_resuming_sees_what_the_protocol_set(loop):
    seen, lost = loop.create_future(), asyncio.Event()

    class Filling(asyncio.Protocol):
        def connection_made(self, transport):
            self.transport = transport

        def data_received(self, data):
            origin.set("while it filled the buffer")
            self.transport.write(bytes(16 << 20))

        def resume_writing(self):
            seen.set_result(origin.get())

        def connection_lost(self, error):
            lost.set()

    server = await loop.create_server(Filling, "127.0.0.1", 0)
    async with server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"go on")
        while not seen.done():
            assert await reader.read(1 << 20)
        assert await seen == "while it filled the buffer"
        writer.transport.abort()
        await lost.wait()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def test_what_a_protocol_set_goes_with_its_connection(loop):
    class Value:
        pass

    class Setting(asyncio.Protocol):
        def connection_made(self, transport):
            value = Value()
            held.set(value)
            references.append(weakref.ref(value))
            transport.close()

        def connection_lost(self, error):
            lost.set()

    held: contextvars.ContextVar[Value] = contextvars.ContextVar("held")
    references: list[weakref.ref[Value]] = []
    lost = asyncio.Event()
    server = await loop.create_server(Setting, "127.0.0.1", 0)
    async with server:
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.close()
        await writer.wait_closed()
        await lost.wait()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    gc.collect()
    assert [reference() for reference in references] == [None]


async def test_many_connections_need_few_contexts(loop, is_aioxide):
    def count():
        return sum(type(object) is contextvars.Context for object in gc.get_objects())

    if not is_aioxide:
        pytest.skip("asyncio gives each a context of its own")
    accepted: list[asyncio.Transport] = []
    everybody = asyncio.Event()

    class Accepted(asyncio.Protocol):
        def connection_made(self, transport):
            accepted.append(transport)
            if len(accepted) == 50:
                everybody.set()

    server = await loop.create_server(Accepted, "127.0.0.1", 0)
    async with server:
        before = count()
        clients = [socket.create_connection(server.sockets[0].getsockname()) for _ in range(50)]
        await everybody.wait()
        assert count() - before < 10
        for client in clients:
            client.close()
        for transport in accepted:
            transport.abort()
        await asyncio.sleep(0)
