"""Sockets of a class that receives and sends in its own way: asyncio's transports call its methods."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import tempfile
from unittest import mock

import pytest
from peers import connected_pair, receive_exactly
from recorder import BufferedRecorder, Recorder
from tls_peers import NAME, client_context, contexts, opposite


class Tracked(socket.socket):
    """Counts the bytes that pass through its methods."""

    received = 0
    sent = 0

    def recv(self, *arguments):
        data = super().recv(*arguments)
        self.received += len(data)
        return data

    def recv_into(self, *arguments):
        count = super().recv_into(*arguments)
        self.received += count
        return count

    def send(self, *arguments):
        count = super().send(*arguments)
        self.sent += count
        return count

    def sendmsg(self, *arguments):
        count = super().sendmsg(*arguments)
        self.sent += count
        return count


@contextlib.contextmanager
def tracked_pair():
    """Two ends of a connection: one tracked, and the blocking one of the peer."""
    with connected_pair() as (ours, theirs):
        yield Tracked(fileno=ours.detach()), theirs


@contextlib.asynccontextmanager
async def connected(loop, protocol=None):
    """Yield (transport, protocol, tracked socket, blocking socket of the peer)."""
    protocol = protocol or Recorder(loop)
    with tracked_pair() as (sock, theirs):
        transport, _ = await loop.create_connection(lambda: protocol, sock=sock)
        yield transport, protocol, sock, theirs
        transport.close()
        await protocol.lost
        assert sock.fileno() == -1


@pytest.mark.parametrize("kind", [Recorder, lambda loop: BufferedRecorder(loop, 100)])
async def test_its_methods_are_called(loop, kind):
    async with connected(loop, kind(loop)) as (transport, protocol, sock, theirs):
        assert isinstance(transport, asyncio.Transport)
        assert transport.get_extra_info("sockname") == theirs.getpeername()
        theirs.sendall(b"question")
        assert await protocol.received(8) == b"question"
        transport.write(b"answer")
        assert await asyncio.to_thread(receive_exactly, theirs, 6) == b"answer"
        assert (sock.received, sock.sent) == (8, 6)


async def test_its_methods_carry_what_the_kernel_does_not_take_at_once(loop):
    data = os.urandom(4 << 20)
    async with connected(loop) as (transport, _protocol, sock, theirs):
        transport.writelines([data[: 1 << 20], data[1 << 20 :]])
        assert await asyncio.to_thread(receive_exactly, theirs, len(data)) == data
        assert sock.sent == len(data)


async def test_it_is_paused_and_resumed_like_any_other(loop):
    class Pausing(Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            transport.pause_reading()
            transport.resume_reading()

    async with connected(loop, Pausing(loop)) as (transport, protocol, _sock, theirs):
        transport.pause_reading()
        theirs.sendall(b"late")
        await asyncio.sleep(0.01)
        assert protocol.calls == ["connection_made"]
        transport.resume_reading()
        assert await protocol.received(4) == b"late"
        theirs.shutdown(socket.SHUT_WR)
        assert await protocol.lost is None


async def test_its_descriptor_is_its_transports(loop):
    async with connected(loop) as (transport, _protocol, sock, _theirs):
        with pytest.raises(RuntimeError, match="is used by transport"):
            loop.add_reader(sock, print)
        assert f"fd={sock.fileno()}" in repr(transport)
    assert "closed" in repr(transport)


async def test_an_accepted_one_is_taken_over(loop):
    protocol = Recorder(loop)
    with tracked_pair() as (sock, theirs):
        transport, _ = await loop.connect_accepted_socket(lambda: protocol, sock)
        theirs.sendall(b"x")
        assert await protocol.received(1) == b"x"
        assert sock.received == 1
        transport.close()
        await protocol.lost


async def test_streams_read_and_write_through_it(loop):
    with tracked_pair() as (sock, theirs):
        reader, writer = await asyncio.open_connection(sock=sock)
        theirs.sendall(b"line\n")
        assert await reader.readline() == b"line\n"
        writer.write(b"answer")
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        assert (sock.received, sock.sent) == (5, 6)


async def test_a_file_is_sent_on_it(loop):
    data = os.urandom(300_000)
    async with connected(loop) as (transport, _protocol, _sock, theirs):
        with tempfile.TemporaryFile() as file:
            file.write(data)
            file.seek(0)
            receiving = asyncio.create_task(asyncio.to_thread(receive_exactly, theirs, len(data)))
            assert await loop.sendfile(transport, file) == len(data)
            assert await receiving == data


@pytest.mark.usefixtures("tls_engine")
async def test_tls_reads_and_writes_through_it(loop, side):
    protocol = Recorder(loop)
    with tracked_pair() as (sock, theirs):
        peer = opposite(side, theirs)
        if side == "client":
            connecting = loop.create_connection(
                lambda: protocol, sock=sock, ssl=client_context(), server_hostname=NAME
            )
        else:
            connecting = loop.connect_accepted_socket(lambda: protocol, sock, ssl=contexts()["server"])
        (transport, _), _ = await asyncio.gather(connecting, asyncio.to_thread(peer.handshake))
        await asyncio.to_thread(peer.send, b"question")
        assert await protocol.received(8) == b"question"
        transport.write(b"answer")
        assert await asyncio.to_thread(peer.receive, 6) == b"answer"
        assert sock.received > 8
        assert sock.sent > 6
        transport.abort()
        await protocol.lost


@pytest.mark.usefixtures("tls_engine")
async def test_it_is_upgraded_to_tls(loop):
    async with connected(loop) as (transport, protocol, sock, theirs):
        peer = opposite("client", theirs)
        tls, _ = await asyncio.gather(
            loop.start_tls(transport, protocol, client_context(), server_hostname=NAME),
            asyncio.to_thread(peer.handshake),
        )
        tls.write(b"answer")
        assert await asyncio.to_thread(peer.receive, 6) == b"answer"
        assert sock.sent > 6
        tls.abort()
        await protocol.lost


async def test_a_method_put_in_place_of_that_of_pythons_sockets_is_called(loop):
    protocol = Recorder(loop)
    with connected_pair() as (ours, theirs), mock.patch.object(socket.socket, "send", return_value=6) as send:
        transport, _ = await loop.create_connection(lambda: protocol, sock=ours)
        transport.write(b"unsent")
        send.assert_called_once_with(b"unsent")
        transport.close()
        await protocol.lost
        assert theirs.recv(1) == b""
