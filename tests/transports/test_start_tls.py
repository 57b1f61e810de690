"""start_tls: a plain connection becomes a TLS one, on either side; over TLS and transports of users, too."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl

import pytest
from peers import connected_pair, receive_all, receive_exactly, reset
from recorder import BufferedRecorder, Recorder
from tls_peers import (
    NAME,
    OTHER_NAME,
    SIDES,
    TlsPeer,
    ViewRecorder,
    client_context,
    contexts,
    finished,
    opposite,
    server_context,
    write_until_paused,
)

pytestmark = pytest.mark.usefixtures("tls_engine")


def options(side):
    """Return what start_tls takes on this side."""
    return {"server_side": True} if side == "server" else {"server_hostname": NAME}


@contextlib.asynccontextmanager
async def plain(loop, protocol=None):
    """A plain connection: (transport, protocol, blocking socket of the peer)."""
    protocol = protocol or Recorder(loop)
    with connected_pair() as (ours, theirs):
        transport, _ = await loop.create_connection(lambda: protocol, sock=ours)
        yield transport, protocol, theirs
        transport.abort()
        await asyncio.sleep(0)


async def upgrade(loop, side, transport, protocol, theirs, **more):
    """Return (TLS transport, peer)."""
    peer = opposite(side, theirs)
    tls, _ = await asyncio.gather(
        loop.start_tls(transport, protocol, contexts()[side], **(options(side) | more)),
        asyncio.to_thread(peer.handshake),
    )
    return tls, peer


async def test_a_plain_connection_becomes_a_secure_one(loop, side):
    async with plain(loop) as (transport, first, theirs):
        theirs.sendall(b"STARTTLS")
        assert await first.received(8) == b"STARTTLS"
        transport.write(b"OK")
        assert await asyncio.to_thread(receive_exactly, theirs, 2) == b"OK"
        second = Recorder(loop)
        tls, peer = await upgrade(loop, side, transport, second, theirs)
        assert tls is not transport
        assert tls.get_protocol() is second
        await asyncio.to_thread(peer.send, b"question")
        assert await second.received(8) == b"question"
        tls.write(b"answer")
        assert await asyncio.to_thread(peer.receive, 6) == b"answer"
        await finished(tls, second, peer)
        # The new protocol was never told that a connection was made, the old one never that it was lost.
        assert second.calls == ["data_received", "eof_received", "connection_lost"]
        assert first.calls == ["connection_made", "data_received"]


async def test_the_same_protocol_may_go_on(loop, side):
    async with plain(loop) as (transport, protocol, theirs):
        tls, peer = await upgrade(loop, side, transport, protocol, theirs)
        await asyncio.to_thread(peer.send, b"data")
        assert await protocol.received(4) == b"data"
        await finished(tls, protocol, peer)
        assert protocol.calls == ["connection_made", "data_received", "eof_received", "connection_lost"]


@pytest.mark.parametrize("size", [5, 60_000, 8 << 20])
async def test_what_was_written_before_goes_out_in_the_clear(loop, side, size, is_aioxide):
    if size > 1 << 20 and not is_aioxide:
        pytest.skip("asyncio fails an assertion when the upgrade finds the transport's writing paused")
    async with plain(loop) as (transport, protocol, theirs):
        data = os.urandom(size)
        transport.write(data)
        upgrading = asyncio.ensure_future(
            loop.start_tls(transport, protocol, contexts()[side], **options(side))
        )
        assert await asyncio.to_thread(receive_exactly, theirs, len(data)) == data
        peer = opposite(side, theirs)
        await asyncio.to_thread(peer.handshake)
        tls = await upgrading
        tls.write(b"secret")
        assert await asyncio.to_thread(peer.receive, 6) == b"secret"
        await finished(tls, protocol, peer)


async def test_extra_info_tells_of_tls_and_of_the_socket(loop, side):
    async with plain(loop) as (transport, protocol, theirs):
        tls, peer = await upgrade(loop, side, transport, protocol, theirs)
        assert tls.get_extra_info("cipher") == peer.tls.cipher()
        assert tls.get_extra_info("ssl_object").version() == peer.tls.version()
        assert (tls.get_extra_info("peercert") is not None) is (side == "client")
        assert tls.get_extra_info("sockname") == theirs.getpeername()
        assert tls.get_extra_info("peername") == theirs.getsockname()
        assert tls.get_extra_info("socket").fileno() == transport.get_extra_info("socket").fileno()
        assert transport.get_extra_info("cipher") is None
        await finished(tls, protocol, peer)


async def test_buffered_protocols_on_both_layers(loop, side):
    async with plain(loop, BufferedRecorder(loop, 64)) as (transport, _, theirs):
        second = ViewRecorder(loop, 100)
        tls, peer = await upgrade(loop, side, transport, second, theirs)
        for _ in range(5):
            await asyncio.to_thread(peer.send, b"twenty bytes of data")
        assert await second.received(100) == b"twenty bytes of data" * 5
        await finished(tls, second, peer)


async def test_much_data_flows_both_ways_at_once(loop, side):
    async with plain(loop) as (transport, protocol, theirs):
        tls, peer = await upgrade(loop, side, transport, protocol, theirs)
        size = 8 << 20
        ours, data = os.urandom(size), os.urandom(size)
        exchange = asyncio.ensure_future(asyncio.to_thread(peer.exchange, data, size))
        for start in range(0, size, 1 << 18):
            await protocol.writable.wait()
            tls.write(ours[start : start + (1 << 18)])
        assert await protocol.received(size) == data
        assert await exchange == ours
        await finished(tls, protocol, peer)


async def test_both_ends_in_one_loop(loop):
    upgraded = []

    class Upgrading(Recorder):
        def data_received(self, data):
            super().data_received(data)
            if self.data == b"STARTTLS":
                self.transport.write(b"OK")
                upgraded.append(asyncio.ensure_future(self.upgrade()))

        async def upgrade(self):
            self.secured = Recorder(loop)
            self.tls = await loop.start_tls(self.transport, self.secured, server_context(), server_side=True)
            return self

    server = await loop.create_server(lambda: Upgrading(loop), "127.0.0.1", 0)
    transport, client = await loop.create_connection(lambda: Recorder(loop), *server.sockets[0].getsockname())
    transport.write(b"STARTTLS")
    assert await client.received(2) == b"OK"
    second = Recorder(loop)
    tls = await loop.start_tls(transport, second, client_context(), server_hostname=NAME)
    served = await upgraded[0]
    data = os.urandom(1 << 20)
    tls.write(data)
    assert await served.secured.received(len(data)) == data
    served.tls.write(data)
    assert await second.received(len(data)) == data
    tls.close()
    assert await second.lost is None
    assert await served.secured.lost is None
    server.close()
    await server.wait_closed()


async def test_streams_become_secure_on_both_sides(loop):
    done = loop.create_future()

    async def serve(reader, writer):
        assert await reader.readline() == b"STARTTLS\n"
        writer.write(b"OK\n")
        await writer.drain()
        await writer.start_tls(server_context())
        line = await reader.readline()
        writer.write(line.upper())
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        done.set_result(None)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(b"STARTTLS\n")
    assert await reader.readline() == b"OK\n"
    await writer.start_tls(client_context(), server_hostname=NAME)
    assert writer.get_extra_info("ssl_object") is not None
    writer.write(b"hello\n")
    await writer.drain()
    assert await reader.readline() == b"HELLO\n"
    assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()
    await done
    server.close()
    await server.wait_closed()


# TLS inside TLS


class Tunnel:
    """What a TlsPeer takes for a socket, and is another TlsPeer."""

    def __init__(self, outer: TlsPeer) -> None:
        self.outer = outer

    def sendall(self, data: bytes) -> None:
        self.outer.send(data)

    def recv(self, _count: int) -> bytes:
        return self.outer.receive_some()

    def close(self) -> None:
        self.outer.close_notify()
        self.outer.sock.close()


@pytest.mark.parametrize("inner_side", SIDES)
async def test_tls_inside_tls(loop, side, inner_side):
    async with plain(loop) as (transport, protocol, theirs):
        outer, outer_peer = await upgrade(loop, side, transport, protocol, theirs)
        tunnelled = Recorder(loop)
        inner, peer = await upgrade(loop, inner_side, outer, tunnelled, Tunnel(outer_peer))
        assert inner is not outer
        assert inner.get_extra_info("ssl_object") is not outer.get_extra_info("ssl_object")
        assert inner.get_extra_info("peername") == theirs.getsockname()
        data = os.urandom(1 << 20)
        inner.write(data)
        assert await asyncio.to_thread(peer.receive, len(data)) == data
        await asyncio.to_thread(peer.send, data)
        assert await tunnelled.received(len(data)) == data
        # Two layers, two close_notify: the outer one closes after the inner one.
        inner.close()
        assert await asyncio.to_thread(peer.receive_all) == b""
        await asyncio.to_thread(peer.shut)
        assert await tunnelled.lost is None
        told = [call for call in tunnelled.calls if not call.endswith("_writing")]
        assert told == ["data_received", "eof_received", "connection_lost"]
        assert outer.is_closing()


async def test_an_abort_of_the_inner_layer_ends_the_outer_one(loop, side):
    async with plain(loop) as (transport, protocol, theirs):
        outer, outer_peer = await upgrade(loop, side, transport, protocol, theirs)
        tunnelled = Recorder(loop)
        inner, _ = await upgrade(loop, side, outer, tunnelled, Tunnel(outer_peer))
        inner.abort()
        assert await tunnelled.lost is None
        assert outer.is_closing()
        assert transport.is_closing()


async def test_back_pressure_goes_through_both_layers(loop, side):
    async with plain(loop) as (transport, protocol, theirs):
        outer, outer_peer = await upgrade(loop, side, transport, protocol, theirs)
        tunnelled = Recorder(loop)
        inner, peer = await upgrade(loop, side, outer, tunnelled, Tunnel(outer_peer))
        chunk = os.urandom(1 << 17)
        written = write_until_paused(inner, tunnelled, chunk)
        receiving = asyncio.ensure_future(asyncio.to_thread(peer.receive, written))
        await tunnelled.writable.wait()
        assert await receiving == chunk * (written // len(chunk))
        inner.abort()
        await tunnelled.lost


# Failures


async def test_a_wrong_name_is_a_certificate_error_and_closes(loop):
    async with plain(loop) as (transport, protocol, theirs):
        peer = opposite("client", theirs, server_context(OTHER_NAME, ssl.TLSVersion.TLSv1_2))
        outcome, of_peer = await asyncio.gather(
            loop.start_tls(transport, protocol, client_context(), server_hostname=NAME),
            asyncio.to_thread(peer.handshake),
            return_exceptions=True,
        )
        assert isinstance(outcome, ssl.CertificateError)
        assert of_peer is not None
        assert transport.is_closing()
        with contextlib.suppress(ConnectionResetError):
            await asyncio.to_thread(receive_all, theirs)


async def test_a_silent_peer_runs_into_the_timeout(loop, side):
    async with plain(loop) as (transport, protocol, _):
        with pytest.raises(ConnectionAbortedError, match=r"longer than 0\.05 seconds"):
            await loop.start_tls(
                transport, protocol, contexts()[side], ssl_handshake_timeout=0.05, **options(side)
            )
        assert transport.is_closing()


@pytest.mark.parametrize("how", ["end", "reset"])
async def test_a_peer_that_leaves_is_a_connection_error(loop, side, how):
    async with plain(loop) as (transport, protocol, theirs):
        upgrading = asyncio.ensure_future(
            loop.start_tls(transport, protocol, contexts()[side], **options(side))
        )
        await asyncio.sleep(0.005)
        if how == "end":
            theirs.shutdown(socket.SHUT_WR)
        else:
            reset(theirs)
        with pytest.raises(ConnectionResetError):
            await upgrading
        assert transport.is_closing()


@pytest.mark.parametrize("turns", range(5))
async def test_a_cancelled_upgrade_closes_the_connection(loop, side, turns):
    async with plain(loop) as (transport, protocol, theirs):
        upgrading = asyncio.ensure_future(
            loop.start_tls(transport, protocol, contexts()[side], **options(side))
        )
        for _ in range(turns + 1):
            await asyncio.sleep(0)
        upgrading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await upgrading
        assert transport.is_closing()
        await asyncio.to_thread(receive_all, theirs)


async def test_garbage_instead_of_a_handshake_fails(loop, side):
    async with plain(loop) as (transport, protocol, theirs):
        upgrading = asyncio.ensure_future(
            loop.start_tls(transport, protocol, contexts()[side], **options(side))
        )
        theirs.sendall(b"this is no TLS at all, and long enough to be read as a record header")
        with pytest.raises(ssl.SSLError):
            await upgrading
        assert transport.is_closing()


@pytest.mark.parametrize("wrong", [None, True, "context", object()], ids=["None", "True", "str", "object"])
async def test_a_context_is_required(loop, wrong):
    async with plain(loop) as (transport, protocol, _):
        with pytest.raises(TypeError, match=r"expected to be an instance of ssl\.SSLContext"):
            await loop.start_tls(transport, protocol, wrong)
        assert not transport.is_closing()


@pytest.mark.parametrize("option", ["ssl_handshake_timeout", "ssl_shutdown_timeout"])
@pytest.mark.parametrize("value", [0, -1])
async def test_timeouts_must_be_positive(loop, side, option, value):
    async with plain(loop) as (transport, protocol, _):
        with pytest.raises(ValueError, match=f"{option} should be a positive"):
            await loop.start_tls(transport, protocol, contexts()[side], **(options(side) | {option: value}))


async def test_transports_that_cannot_say_so(loop):
    with pytest.raises(TypeError, match=r"is not supported by start_tls\(\)"):
        await loop.start_tls(object(), Recorder(loop), client_context())


async def test_an_upgrade_over_a_closing_transport_gives_none(loop, side):
    async with plain(loop) as (transport, protocol, _):
        transport.close()
        assert await loop.start_tls(transport, protocol, contexts()[side], **options(side)) is None


# Transports of users


class Pipe(asyncio.Transport):
    """One end of a pair of transports that hand bytes to each other, a turn later."""

    _start_tls_compatible = True

    def __init__(self, loop):
        super().__init__()
        self.loop = loop
        self.other = None
        self.protocol = None
        self.closing = False
        self.reading = True
        self.kept = bytearray()

    def get_protocol(self):
        return self.protocol

    def set_protocol(self, protocol):
        self.protocol = protocol

    def get_extra_info(self, name, default=None):
        return {"peername": "the other end"}.get(name, default)

    def is_closing(self):
        return self.closing

    def is_reading(self):
        return self.reading

    def pause_reading(self):
        self.reading = False

    def resume_reading(self):
        self.reading = True
        self.loop.call_soon(self.deliver)

    def write(self, data):
        self.other.kept += data
        self.loop.call_soon(self.other.deliver)

    def deliver(self):
        while self.kept and self.reading and not self.closing:
            if isinstance(self.protocol, asyncio.BufferedProtocol):
                buffer = self.protocol.get_buffer(len(self.kept))
                count = min(len(buffer), len(self.kept))
                buffer[:count] = self.kept[:count]
                del self.kept[:count]
                self.protocol.buffer_updated(count)
            else:
                data = bytes(self.kept)
                self.kept.clear()
                self.protocol.data_received(data)

    def close(self):
        self._force_close(None)

    abort = close

    def _force_close(self, error):
        if not self.closing:
            self.closing = True
            self.loop.call_soon(self.protocol.connection_lost, error)
            self.loop.call_soon(self.other.end)

    def end(self):
        if not self.closing and not self.protocol.eof_received():
            self.close()


def piped(loop):
    """Return two ends that are each other's."""
    one, other = Pipe(loop), Pipe(loop)
    one.other, other.other = other, one
    return one, other


async def test_tls_over_a_transport_of_the_user(loop):
    below_client, below_server = piped(loop)
    client, server = Recorder(loop), Recorder(loop)
    below_client.set_protocol(client)
    below_server.set_protocol(server)
    pair = contexts()
    tls, served = await asyncio.gather(
        loop.start_tls(below_client, client, pair["client"], server_hostname=NAME),
        loop.start_tls(below_server, server, pair["server"], server_side=True),
    )
    data = os.urandom(1 << 20)
    tls.write(data)
    assert await server.received(len(data)) == data
    served.write(data)
    assert await client.received(len(data)) == data
    assert tls.get_extra_info("peername") == "the other end"
    assert tls.get_extra_info("cipher") == served.get_extra_info("cipher")
    tls.close()
    assert await client.lost is None
    assert await server.lost is None
    assert below_client.closing
    assert below_server.closing


async def test_a_failed_handshake_closes_a_transport_of_the_user(loop):
    below_client, below_server = piped(loop)
    client, server = Recorder(loop), Recorder(loop)
    below_client.set_protocol(client)
    below_server.set_protocol(server)
    pair = contexts()
    outcomes = await asyncio.gather(
        loop.start_tls(below_client, client, pair["client"], server_hostname=OTHER_NAME),
        loop.start_tls(below_server, server, pair["server"], server_side=True),
        return_exceptions=True,
    )
    assert isinstance(outcomes[0], ssl.CertificateError)
    assert below_client.closing
    if not isinstance(outcomes[1], Exception):  # TLS 1.3: the server may think that all is well
        await server.lost
    assert below_server.closing


async def test_reading_of_a_transport_of_the_user_is_paused_when_too_much_waits(loop):
    below_client, below_server = piped(loop)
    client, server = Recorder(loop), Recorder(loop)
    below_client.set_protocol(client)
    below_server.set_protocol(server)
    pair = contexts()
    tls, served = await asyncio.gather(
        loop.start_tls(below_client, client, pair["client"], server_hostname=NAME),
        loop.start_tls(below_server, server, pair["server"], server_side=True),
    )
    served.pause_reading()
    data = bytes(1 << 20)
    tls.write(data)
    for _ in range(20):
        await asyncio.sleep(0)
    assert not below_server.reading
    assert server.data == b""
    served.resume_reading()
    assert await server.received(len(data)) == data
    assert below_server.reading
    tls.close()
    await asyncio.gather(client.lost, server.lost)
