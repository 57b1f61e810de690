"""What protocols do to their transport inside their own callbacks, and what errors in there leave behind."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import socket
import sys
import weakref
from typing import Any

import pytest
from peers import connected_pair, in_thread, receive_exactly, reset
from recorder import Recorder

LARGE = 8_000_000
here: contextvars.ContextVar[str] = contextvars.ContextVar("here")


async def test_a_protocol_that_writes_while_it_receives_is_paused(loop, reported):
    class Answering(Recorder):
        def data_received(self, data):
            here.set("data_received")
            self.transport.write(bytes(LARGE))
            assert self.calls[-1] == "pause_writing"

        def pause_writing(self):
            super().pause_writing()
            assert here.get() == "data_received"

    with connected_pair() as (ours, theirs):
        transport, protocol = await loop.create_connection(lambda: Answering(loop), sock=ours)
        theirs.sendall(b"?")
        await protocol.paused.wait()  # before anything is read: a fast reader leaves nothing to wait for
        received: list[bytes] = []
        with in_thread(lambda: received.append(receive_exactly(theirs, LARGE))):
            await protocol.writable.wait()
            # What is left by then leaves as long as the loop runs.
            while not received:
                await asyncio.sleep(0.001)
        transport.close()
        await protocol.lost


async def test_a_protocol_can_be_replaced_by_one_of_the_other_kind_inside_a_buffer(loop):
    class Header(asyncio.BufferedProtocol):
        def connection_made(self, transport):
            self.transport = transport
            self.buffer = bytearray(4)

        def get_buffer(self, sizehint):
            return self.buffer

        def buffer_updated(self, nbytes):
            received.append(bytes(self.buffer[:nbytes]))
            self.transport.set_protocol(body)

    received: list[bytes] = []
    body = Recorder(loop)
    with connected_pair() as (ours, theirs):
        theirs.sendall(b"headbody")
        transport, _ = await loop.create_connection(Header, sock=ours)
        assert await body.received(4) == b"body"
        assert received == [b"head"]
        transport.close()
        await body.lost


async def test_what_a_resumed_protocol_writes_leaves_without_another_event(loop):
    class Resumed(Recorder):
        def resume_writing(self):
            super().resume_writing()
            self.transport.write(b"resumed")

    def receive(peer, protocol):
        data = receive_exactly(peer, 20_001)
        return data + (receive_exactly(peer, 7) if "pause_writing" in protocol.calls else b"")

    def write_more():
        for transport, _, _ in connections:
            transport.set_write_buffer_limits(high=100)
            transport.write(b"y")
            transport.write(b"y" * 19_999)

    with contextlib.ExitStack() as stack:
        connections = []
        for _ in range(3):
            ours, theirs = stack.enter_context(connected_pair())
            theirs.settimeout(5)
            transport, protocol = await loop.create_connection(lambda: Resumed(loop), sock=ours)
            connections.append((transport, protocol, theirs))
        receiving = [loop.run_in_executor(None, receive, peer, protocol) for _, protocol, peer in connections]
        for transport, _, _ in connections:
            transport.write(b"x")
        loop.call_soon(write_more)
        for data, (transport, protocol, _) in zip(await asyncio.gather(*receiving), connections, strict=True):
            assert data[:20_001] == b"x" + b"y" * 20_000
            assert data[20_001:] == (b"resumed" if "resume_writing" in protocol.calls else b"")
            transport.abort()
            await protocol.lost


@pytest.mark.parametrize("callback", ["data_received", "buffer_updated"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_error_that_ends_the_loop_loses_no_bytes(loop, callback, error):
    received = bytearray()

    def note(data):
        received.extend(data)
        if len(received) == 30_000:
            loop.stop()
        if len(received) == len(data):
            raise error

    class Plain(asyncio.Protocol):
        def data_received(self, data):
            note(data)

    class Buffered(asyncio.BufferedProtocol):
        def get_buffer(self, sizehint):
            self.buffer = bytearray(100)
            return self.buffer

        def buffer_updated(self, nbytes):
            note(self.buffer[:nbytes])

    with connected_pair() as (ours, theirs):
        factory = Plain if callback == "data_received" else Buffered
        transport, _ = loop.run_until_complete(loop.create_connection(factory, sock=ours))
        theirs.sendall(b"z" * 15_000)
        with pytest.raises(error):
            loop.run_forever()
        theirs.sendall(b"z" * 15_000)
        loop.run_forever()
        transport.abort()
        loop.run_until_complete(asyncio.sleep(0))
    assert received == b"z" * 30_000


def test_an_error_in_connection_made_that_ends_the_loop_leaves_the_connection_at_work(loop):
    class Interrupted(Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            raise KeyboardInterrupt

    with connected_pair() as (ours, theirs):
        theirs.sendall(b"data")
        connecting = loop.create_task(loop.create_connection(lambda: Interrupted(loop), sock=ours))
        with pytest.raises(KeyboardInterrupt):
            loop.run_until_complete(connecting)
        transport, protocol = loop.run_until_complete(connecting)
        assert loop.run_until_complete(protocol.received(4)) == b"data"
        transport.close()
        loop.run_until_complete(protocol.lost)


async def test_a_socket_gets_one_transport(loop, is_aioxide):
    if not is_aioxide and sys.version_info < (3, 12):
        pytest.skip("asyncio refuses it from 3.12 on")
    with connected_pair() as (ours, _):
        transport, protocol = await loop.create_connection(lambda: Recorder(loop), sock=ours)
        with pytest.raises(RuntimeError, match="is used by transport"):
            await loop.create_connection(lambda: Recorder(loop), sock=ours)
        assert not transport.is_closing()
        transport.close()
        await protocol.lost


async def test_a_paused_protocol_gets_its_bytes_before_the_reset(loop):
    class Hesitant(Recorder):
        def data_received(self, data):
            super().data_received(data)
            self.transport.pause_reading()
            self.loop.call_later(0.001, self.transport.resume_reading)

    with connected_pair() as (ours, theirs):
        theirs.sendall(b"d" * 20_000)
        reset(theirs)
        transport, protocol = await loop.create_connection(lambda: Hesitant(loop), sock=ours)
        error = await protocol.lost
        assert len(protocol.data) == 20_000
        assert isinstance(error, ConnectionResetError)
        assert transport.is_closing()


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
async def test_the_descriptor_of_a_transport_forgotten_to_another_thread_can_be_watched(loop):
    ours, theirs = socket.socketpair()
    number = ours.fileno()
    transport, protocol = await loop.create_connection(lambda: Recorder(loop), sock=ours)
    transport.pause_reading()  # from here on nobody holds it but its own protocol
    alive = weakref.ref(transport)
    del transport, protocol, ours
    while alive():
        await loop.run_in_executor(None, gc.collect)
    theirs.close()
    first, second = socket.socketpair()
    with first, second:
        assert number in (first.fileno(), second.fileno())
        for watched in (first, second):
            loop.add_reader(watched, print)
            assert loop.remove_reader(watched)


ACTIONS = {
    "write": lambda transport: transport.write(b"w"),
    "write much": lambda transport: transport.write(bytes(300_000)),
    "writelines": lambda transport: transport.writelines([b"a", bytes(9_000)]),
    "write_eof": lambda transport: transport.write_eof(),
    "close": lambda transport: transport.close(),
    "abort": lambda transport: transport.abort(),
    "pause_reading": lambda transport: transport.pause_reading(),
    "set_protocol": lambda transport: transport.set_protocol(transport.get_protocol()),
    "limits": lambda transport: transport.set_write_buffer_limits(0),
    "size": lambda transport: transport.get_write_buffer_size(),
    "repr": repr,
}
CALLBACKS = [
    "connection_made",
    "data_received",
    "eof_received",
    "pause_writing",
    "resume_writing",
    "connection_lost",
]


@pytest.mark.parametrize("callback", CALLBACKS)
@pytest.mark.parametrize("action", ACTIONS)
async def test_a_transport_can_be_used_inside_every_callback(loop, is_aioxide, reported, callback, action):
    """Whatever is called, and whenever: nothing is reported, and the connection is lost once."""

    class Acting(Recorder):
        acted = False

        def __getattribute__(self, name: str) -> Any:
            method = super().__getattribute__(name)
            return act_after(method) if name == callback else method

    def act_after(method):
        def wrapped(*arguments):
            result = method(*arguments)
            protocol = method.__self__
            if not protocol.acted:
                protocol.acted = True
                with contextlib.suppress(RuntimeError if "write" in action else ()):
                    ACTIONS[action](protocol.transport)
            return result

        return wrapped

    with connected_pair() as (ours, theirs):
        theirs.setblocking(False)
        theirs.send(b"data" * 2_000)
        transport, protocol = await loop.create_connection(lambda: Acting(loop), sock=ours)
        await asyncio.sleep(0)
        with contextlib.suppress(RuntimeError):  # after write_eof()
            transport.write(bytes(LARGE))
        await asyncio.sleep(0)
        with contextlib.suppress(OSError):  # after a reset
            theirs.shutdown(socket.SHUT_WR)
        while not protocol.lost.done():
            with contextlib.suppress(ConnectionError):
                if not await asyncio.wait_for(loop.sock_recv(theirs, 1 << 20), 10):
                    break
            if not transport.is_closing():
                transport.resume_reading()
        transport.resume_reading()
        await asyncio.wait_for(protocol.lost, 10)
    assert protocol.calls.count("connection_made") == 1
    assert protocol.calls.count("connection_lost") == 1
    if is_aioxide:  # asyncio pauses a protocol that writes much to a lost connection
        assert protocol.calls[-1] == "connection_lost"
    if not is_aioxide:
        reported.clear()  # asyncio's own transports stumble over some of this
