"""TLS connections that end badly: truncated, reset, corrupted, out of time, and protocols that fail."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import ssl
import subprocess
import sys

import pytest
from peers import connected_pair, receive_all, reset
from recorder import BufferedRecorder, Recorder
from tls_peers import NAME, contexts, finished, open_transport, opposite, secured

pytestmark = pytest.mark.usefixtures("tls_engine")

# Peers


async def test_an_end_without_close_notify_is_an_end(loop, side):
    async with secured(loop, side) as (_, protocol, peer):
        await asyncio.to_thread(peer.send, b"truncated")
        # Half of it only: a socket closed with unread tickets of the server would send a reset.
        peer.sock.shutdown(socket.SHUT_WR)
        assert await protocol.lost is None
        assert protocol.data == b"truncated"
        assert protocol.calls == ["connection_made", "data_received", "eof_received", "connection_lost"]


async def test_an_end_inside_a_record_delivers_nothing_of_it(loop, side):
    async with secured(loop, side) as (_, protocol, peer):
        peer.sock.sendall(peer.encrypt(b"whole") + peer.encrypt(b"half")[:-3])
        peer.sock.shutdown(socket.SHUT_WR)
        await protocol.lost
        assert protocol.data == b"whole"
        assert protocol.calls[-1] == "connection_lost"


async def test_a_peer_that_closes_its_half_ends_the_connection(loop, side):
    async with secured(loop, side) as (_, protocol, peer):
        peer.sock.shutdown(socket.SHUT_WR)
        assert await protocol.lost is None
        assert protocol.calls == ["connection_made", "eof_received", "connection_lost"]
        await asyncio.to_thread(receive_all, peer.sock)


async def test_a_half_closed_peer_still_receives_what_was_written(loop, side):
    async with secured(loop, side) as (transport, protocol, peer):
        data = os.urandom(1 << 20)
        transport.write(data)
        await asyncio.to_thread(peer.close_notify)
        received = await asyncio.to_thread(peer.receive_all)
        assert received == data
        assert await protocol.lost is None


async def test_a_reset_is_told(loop, side):
    async with secured(loop, side) as (transport, protocol, peer):
        reset(peer.sock)
        assert isinstance(await protocol.lost, ConnectionResetError)
        assert transport.is_closing()
        assert protocol.calls == ["connection_made", "connection_lost"]


async def test_a_reset_in_the_middle_of_a_write_is_told(loop, side):
    async with secured(loop, side) as (transport, protocol, peer):
        while not protocol.paused.is_set():
            transport.write(bytes(1 << 20))
        await asyncio.sleep(0.005)
        reset(peer.sock)
        assert isinstance(await protocol.lost, (ConnectionResetError, BrokenPipeError))


async def test_a_reset_while_closing_is_told(loop, side):
    async with secured(loop, side) as (transport, protocol, peer):
        transport.close()
        await asyncio.to_thread(peer.receive_all)
        reset(peer.sock)
        assert isinstance(await protocol.lost, ConnectionResetError)


async def test_a_peer_that_answers_close_by_leaving_is_content_enough(loop, side):
    async with secured(loop, side) as (transport, protocol, peer):
        transport.close()
        await asyncio.to_thread(peer.receive_all)
        peer.sock.close()
        assert await protocol.lost is None


async def test_a_silent_peer_runs_into_the_shutdown_timeout(loop, side):
    async with secured(loop, side, ssl_shutdown_timeout=0.05) as (transport, protocol, peer):
        transport.close()
        error = await protocol.lost
        assert isinstance(error, TimeoutError)
        assert str(error) == "SSL shutdown timed out"
        assert await asyncio.to_thread(peer.receive_all) == b""


async def test_a_peer_that_does_not_read_runs_into_the_shutdown_timeout(loop, side):
    async with secured(loop, side, ssl_shutdown_timeout=0.05) as (transport, protocol, _):
        while not protocol.paused.is_set():
            transport.write(bytes(1 << 20))
        transport.close()
        assert isinstance(await protocol.lost, TimeoutError)


async def test_a_peer_that_ends_and_does_not_read_runs_into_the_shutdown_timeout(loop, side, is_aioxide):
    if not is_aioxide and sys.version_info < (3, 14, 10):
        pytest.skip("this asyncio waits for ever")
    async with secured(loop, side, ssl_shutdown_timeout=0.05) as (transport, protocol, peer):
        transport.write(bytes(1 << 25))  # more than the kernel takes
        peer.sock.shutdown(socket.SHUT_WR)
        assert isinstance(await protocol.lost, TimeoutError)


async def test_a_shutdown_in_time_is_not_disturbed_by_its_timeout(loop, side):
    async with secured(loop, side, ssl_shutdown_timeout=0.05) as (transport, protocol, peer):
        await finished(transport, protocol, peer)
        await asyncio.sleep(0.1)
        assert protocol.calls.count("connection_lost") == 1


async def test_a_connection_outlives_its_handshake_timeout(loop, side):
    async with secured(loop, side, ssl_handshake_timeout=1) as (transport, protocol, peer):
        await asyncio.sleep(1.1)
        await asyncio.to_thread(peer.send, b"x")
        assert await protocol.received(1) == b"x"
        await finished(transport, protocol, peer)


@pytest.mark.parametrize("where", ["header", "body"])
async def test_a_corrupted_record_ends_the_connection(loop, side, where):
    async with secured(loop, side) as (transport, protocol, peer):
        await asyncio.to_thread(peer.send, b"good")
        await protocol.received(4)
        record = bytearray(peer.encrypt(b"bad"))
        record[0 if where == "header" else -1] ^= 0x55
        await asyncio.to_thread(peer.sock.sendall, record)
        error = await protocol.lost
        assert isinstance(error, ssl.SSLError)
        assert transport.is_closing()
        assert protocol.data == b"good"
        assert protocol.calls == ["connection_made", "data_received", "connection_lost"]


async def test_a_warning_alert_or_garbage_after_the_end_is_harmless(loop, side):
    async with secured(loop, side) as (_, protocol, peer):
        await asyncio.to_thread(peer.close_notify)
        with contextlib.suppress(OSError):
            peer.sock.sendall(b"garbage after the end")
        await protocol.lost
        assert protocol.calls == ["connection_made", "eof_received", "connection_lost"]


async def test_data_that_arrives_after_close_is_not_delivered_and_does_not_keep_it_open(
    loop, side, is_aioxide
):
    async with secured(loop, side) as (transport, protocol, peer):
        transport.close()
        await asyncio.to_thread(peer.send, b"late")
        await asyncio.to_thread(peer.close_notify)
        error = await protocol.lost
        assert error is None or (isinstance(error, ssl.SSLError) and not is_aioxide)
        assert protocol.data == b""
        assert protocol.calls[-1] == "connection_lost"


@pytest.mark.skipif(shutil.which("openssl") is None, reason="Python's ssl cannot ask for a renegotiation")
async def test_renegotiation_is_refused(loop):
    protocol = Recorder(loop)
    context = contexts(ssl.TLSVersion.TLSv1_2)["server"]
    server = await loop.create_server(lambda: protocol, "127.0.0.1", 0, ssl=context)
    address = "{}:{}".format(*server.sockets[0].getsockname())
    command = ("openssl", "s_client", "-tls1_2", "-connect", address)
    # Not the loop's subprocesses: they are not what is tested here.
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as client:
        client.stdin.write(b"hello\n")
        client.stdin.flush()
        assert await protocol.received(6) == b"hello\n"
        client.stdin.write(b"R\n")
        client.stdin.flush()
        # The client takes the refusal for a failure and says so.
        assert isinstance(await protocol.lost, ssl.SSLError)
        _, told = await asyncio.to_thread(client.communicate)
    assert b"no renegotiation" in told
    server.close()
    await server.wait_closed()


async def test_a_handshake_in_the_clear_within_a_connection_ends_it(loop):
    pair = contexts(ssl.TLSVersion.TLSv1_2)
    async with secured(loop, "server", context=pair["server"], peer_context=pair["client"]) as (
        transport,
        protocol,
        peer,
    ):
        other = opposite("server", peer.sock, pair["client"])
        with pytest.raises(ssl.SSLWantReadError):
            other.tls.do_handshake()
        await asyncio.to_thread(peer.sock.sendall, other.outgoing.read())
        assert isinstance(await protocol.lost, ssl.SSLError)
        assert transport.is_closing()


async def test_tickets_between_data_do_not_disturb(loop, side):
    pair = contexts(ssl.TLSVersion.TLSv1_3)
    pair["server"].num_tickets = 50
    other = "server" if side == "client" else "client"
    async with secured(loop, side, context=pair[side], peer_context=pair[other]) as (
        transport,
        protocol,
        peer,
    ):
        transport.write(b"one")
        assert await asyncio.to_thread(peer.receive, 3) == b"one"
        await asyncio.to_thread(peer.send, b"two")
        assert await protocol.received(3) == b"two"
        await finished(transport, protocol, peer)


# Handshakes


@pytest.mark.parametrize("count", [0, 1, 5, 6, 100, 250])
@pytest.mark.parametrize("how", ["end", "reset"])
async def test_a_handshake_cut_short_at_any_byte_fails_once(loop, side, count, how):
    protocol = Recorder(loop)
    with connected_pair() as (ours, theirs):
        opening = asyncio.ensure_future(open_transport(loop, side, lambda: protocol, ours))
        peer = opposite(side, theirs)
        if side == "server":
            with pytest.raises(ssl.SSLWantReadError):
                peer.tls.do_handshake()
        else:

            def answer():
                with contextlib.suppress(ssl.SSLWantReadError):
                    while not peer.outgoing.pending:
                        peer._fill()
                        peer.tls.do_handshake()

            await asyncio.to_thread(answer)
        theirs.sendall(peer.outgoing.read()[:count])
        if how == "end":
            theirs.close()
        else:
            reset(theirs)
        with pytest.raises(ConnectionResetError):
            await opening
        assert protocol.calls == []


async def test_an_end_right_after_the_handshake_is_told_after_connection_made(loop):
    protocol = Recorder(loop)
    pair = contexts()
    with connected_pair() as (ours, theirs):
        peer = opposite("server", theirs, pair["client"])

        def shake_hands_and_leave():
            peer.handshake()
            peer.close_notify()
            theirs.shutdown(socket.SHUT_WR)

        opening = loop.connect_accepted_socket(lambda: protocol, ours, ssl=pair["server"])
        (transport, _), _ = await asyncio.gather(opening, asyncio.to_thread(shake_hands_and_leave))
        assert await protocol.lost is None
        assert protocol.calls == ["connection_made", "eof_received", "connection_lost"]
        assert transport.is_closing()


# Protocols


class Failing(Recorder):
    """Raises in one of its methods, after recording the call."""

    def __init__(self, loop, method, error):
        super().__init__(loop)
        ordinary = getattr(self, method)

        def fail(*arguments):
            ordinary(*arguments)
            raise error

        setattr(self, method, fail)


async def test_a_data_received_that_fails_ends_the_connection(loop, reported, side):
    async with secured(loop, side, Failing(loop, "data_received", LookupError("wrong"))) as (
        transport,
        protocol,
        peer,
    ):
        await asyncio.to_thread(peer.send, b"data")
        error = await protocol.lost
        assert isinstance(error, LookupError)
        assert transport.is_closing()
        context = reported.pop()
        assert context["exception"] is error
        assert context["message"] == "Fatal error on SSL protocol"
        assert set(context) == {"message", "exception", "transport", "protocol"}


async def test_an_eof_received_that_fails_ends_the_connection(loop, reported, side):
    async with secured(loop, side, Failing(loop, "eof_received", LookupError("wrong"))) as (
        transport,
        protocol,
        peer,
    ):
        await asyncio.to_thread(peer.close_notify)
        error = await protocol.lost
        assert isinstance(error, LookupError)
        assert transport.is_closing()
        context = reported.pop()
        assert context["exception"] is error
        assert context["message"] == "Error calling eof_received()"


async def test_a_connection_lost_that_fails_is_reported(loop, reported, side):
    async with secured(loop, side, Failing(loop, "connection_lost", LookupError("wrong"))) as (
        transport,
        protocol,
        _,
    ):
        transport.abort()
        await protocol.lost
        await asyncio.sleep(0)
        assert isinstance(reported.pop()["exception"], LookupError)


async def test_a_pause_writing_that_fails_is_reported_and_nothing_else(loop, reported, side):
    async with secured(loop, side, Failing(loop, "pause_writing", LookupError("wrong"))) as (
        transport,
        protocol,
        peer,
    ):
        written = 0
        while not protocol.paused.is_set():
            transport.write(bytes(1 << 17))
            written += 1 << 17
        context = reported.pop()
        assert context["message"] == "protocol.pause_writing() failed"
        assert isinstance(context["exception"], LookupError)
        assert not transport.is_closing()
        assert len(await asyncio.to_thread(peer.receive, written)) == written
        await finished(transport, protocol, peer)


async def test_a_resume_writing_that_fails_is_reported_and_nothing_else(loop, reported, side):
    async with secured(loop, side, Failing(loop, "resume_writing", LookupError("wrong"))) as (
        transport,
        protocol,
        peer,
    ):
        written = 0
        while not protocol.paused.is_set():
            transport.write(bytes(1 << 17))
            written += 1 << 17
        assert len(await asyncio.to_thread(peer.receive, written)) == written
        await protocol.writable.wait()
        context = reported.pop()
        assert context["message"] == "protocol.resume_writing() failed"
        assert isinstance(context["exception"], LookupError)
        assert not transport.is_closing()
        await finished(transport, protocol, peer)


async def test_a_connection_made_that_fails_is_reported_and_ends_the_connection(loop, reported, side):
    protocol = Failing(loop, "connection_made", LookupError("wrong"))
    with connected_pair() as (ours, theirs):
        peer = opposite(side, theirs)
        opening = asyncio.ensure_future(open_transport(loop, side, lambda: protocol, ours))
        outcome, _ = await asyncio.gather(opening, asyncio.to_thread(peer.handshake), return_exceptions=True)
        # The protocol has the transport, and is told of its end.
        assert await protocol.lost is outcome
        assert isinstance(outcome, LookupError)
        contexts_reported = [reported.pop() for _ in range(len(reported))]
        assert [context["exception"] for context in contexts_reported] == [outcome]


async def test_a_factory_that_fails_leaves_nothing(loop, side):
    def fail():
        raise LookupError("wrong")

    with connected_pair() as (ours, _), pytest.raises(LookupError):
        await open_transport(loop, side, fail, ours)


@pytest.mark.parametrize("method", ["get_buffer", "buffer_updated"])
async def test_a_buffered_protocol_that_fails_ends_the_connection(loop, reported, side, method):
    def fail(*_):
        raise LookupError("wrong")

    protocol = BufferedRecorder(loop, 10)
    async with secured(loop, side, protocol) as (transport, _, peer):
        setattr(protocol, method, fail)
        # The methods were looked up when the protocol was set.
        transport.set_protocol(protocol)
        await asyncio.to_thread(peer.send, b"data")
        error = await protocol.lost
        assert isinstance(error, LookupError)
        assert reported.pop()["exception"] is error
        assert transport.is_closing()


@pytest.mark.parametrize("wrong", [b"", bytearray(), b"read only", "text", None, 42], ids=repr)
async def test_a_wrong_buffer_ends_the_connection_and_is_reported(loop, reported, side, wrong):
    protocol = BufferedRecorder(loop, 10)
    async with secured(loop, side, protocol) as (transport, _, peer):
        protocol.get_buffer = lambda hint: wrong
        transport.set_protocol(protocol)
        await asyncio.to_thread(peer.send, b"data")
        error = await protocol.lost
        assert error is not None
        assert transport.is_closing()
        # OpenSSL itself refuses an empty buffer, with an error that counts as one of the network.
        if reported or not isinstance(error, OSError):
            assert reported.pop()["exception"] is error


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("method", ["data_received", "eof_received", "connection_made"])
def test_what_must_stop_the_program_leaves_the_loop(loop, reported, side, method, error):
    protocol = Failing(loop, method, error)

    async def main():
        with connected_pair() as (ours, theirs):
            peer = opposite(side, theirs)

            def act():
                peer.handshake()
                if method == "data_received":
                    peer.send(b"data")
                elif method == "eof_received":
                    peer.close_notify()

            acting = asyncio.ensure_future(asyncio.to_thread(act))
            opening = asyncio.ensure_future(
                open_transport(loop, side, lambda: protocol, ours, ssl_handshake_timeout=1)
            )
            await asyncio.wait([acting, opening])
            await protocol.lost

    task = loop.create_task(main())
    with pytest.raises(error):
        loop.run_until_complete(task)

    async def tidy():
        protocol.transport.abort()
        await asyncio.gather(task, protocol.lost, return_exceptions=True)

    loop.run_until_complete(tidy())
    reported.clear()


async def test_a_server_goes_on_when_a_protocol_fails(loop, reported):
    class Fragile(asyncio.Protocol):
        def connection_made(self, transport):
            self.transport = transport

        def data_received(self, data):
            if data == b"break":
                raise LookupError("broken")
            self.transport.write(data)

    pair = contexts()
    server = await loop.create_server(Fragile, "127.0.0.1", 0, ssl=pair["server"])
    address = server.sockets[0].getsockname()
    for question in (b"break", b"hello"):
        transport, client = await loop.create_connection(
            lambda: Recorder(loop), *address, ssl=pair["client"], server_hostname=NAME
        )
        transport.write(question)
        if question == b"hello":
            assert await client.received(5) == b"hello"
            transport.close()
        await client.lost
    assert isinstance(reported.pop()["exception"], LookupError)
    server.close()
    await server.wait_closed()
