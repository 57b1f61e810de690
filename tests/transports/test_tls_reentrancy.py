"""TLS transports used from within their own callbacks, from other threads, and by users' own contexts."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import warnings

import pytest
from peers import connected_pair
from recorder import Recorder
from tls_peers import (
    CLIENT_NAME,
    NAME,
    TlsPeer,
    ViewRecorder,
    client_context,
    contexts,
    demand_client_certificate,
    finished,
    open_transport,
    opposite,
    secured,
    server_context,
    show_client_certificate,
    write_until_paused,
)

pytestmark = pytest.mark.usefixtures("tls_engine")


class Reacting(Recorder):
    """Calls a function of the test inside one of its methods, after recording the call."""

    def __init__(self, loop, method, react):
        super().__init__(loop)
        ordinary = getattr(self, method)

        def act(*arguments):
            result = ordinary(*arguments)
            react(self)
            return result

        setattr(self, method, act)


# Within callbacks


async def test_writing_when_told_to_pause_is_sent(loop, side):
    protocol = Reacting(loop, "pause_writing", lambda protocol: protocol.transport.write(b"still"))
    async with secured(loop, side, protocol) as (transport, _, peer):
        written = write_until_paused(transport, protocol)
        data = await asyncio.to_thread(peer.receive, written + 5)
        # Where in the flow depends on what was waiting; nothing is lost and nothing doubled.
        assert data.count(b"still") == 1
        assert protocol.calls.count("pause_writing") == 1
        await finished(transport, protocol, peer)


async def test_writing_when_told_to_resume_pauses_again(loop, side):
    rounds = []

    def refill(protocol):
        if len(rounds) < 5:
            rounds.append(write_until_paused(protocol.transport, protocol))

    protocol = Reacting(loop, "resume_writing", refill)
    async with secured(loop, side, protocol) as (transport, _, peer):
        written = write_until_paused(transport, protocol)

        def receive():
            total = 0
            while total < written + sum(rounds) or len(rounds) < 5:
                total += len(peer.receive_some())
            return total

        assert await asyncio.to_thread(receive) == written + sum(rounds)
        await protocol.writable.wait()
        assert protocol.calls.count("pause_writing") == protocol.calls.count("resume_writing") == 6
        await finished(transport, protocol, peer)


@pytest.mark.parametrize("method", ["pause_writing", "resume_writing"])
@pytest.mark.parametrize("ending", ["close", "abort"])
async def test_an_end_within_flow_control(loop, side, method, ending, is_aioxide):
    if (method, ending) == ("resume_writing", "abort") and not is_aioxide:
        pytest.skip("asyncio may close its socket twice")
    protocol = Reacting(loop, method, lambda protocol: getattr(protocol.transport, ending)())
    async with secured(loop, side, protocol) as (transport, _, peer):
        written = write_until_paused(transport, protocol)

        def receive():
            with contextlib.suppress(EOFError, OSError):
                data = peer.receive_all()
                peer.shut()
                return len(data)

        received = await asyncio.to_thread(receive)
        await protocol.lost
        assert protocol.calls.count("connection_lost") == 1
        if ending == "close":
            assert received <= written


async def test_a_protocol_of_another_kind_set_within_data_received(loop, side):
    second = ViewRecorder(loop, 100)
    protocol = Reacting(loop, "data_received", lambda protocol: protocol.transport.set_protocol(second))
    async with secured(loop, side, protocol) as (transport, _, peer):
        await asyncio.to_thread(peer.send, b"one")
        assert await protocol.received(3) == b"one"
        await asyncio.to_thread(peer.send, b"two")
        assert await second.received(3) == b"two"
        await finished(transport, second, peer)
        protocol.lost.set_result(None)


async def test_a_protocol_of_another_kind_set_within_buffer_updated(loop, side):
    second = Recorder(loop)

    class Handing(ViewRecorder):
        def buffer_updated(self, nbytes):
            super().buffer_updated(nbytes)
            self.transport.set_protocol(second)

    protocol = Handing(loop, 100)
    async with secured(loop, side, protocol) as (transport, _, peer):
        await asyncio.to_thread(peer.send, b"one")
        assert await protocol.received(3) == b"one"
        await asyncio.to_thread(peer.send, b"two")
        assert await second.received(3) == b"two"
        await finished(transport, second, peer)
        protocol.lost.set_result(None)


async def test_an_echo_within_data_received_at_every_size(loop, side):
    protocol = Reacting(loop, "data_received", lambda protocol: None)
    protocol.data_received = lambda data: protocol.transport.write(data)
    async with secured(loop, side, protocol) as (transport, _, peer):
        for size in (1, 100, 16384, 16385, 300_000, 1 << 20):
            data = os.urandom(size)
            assert await asyncio.to_thread(peer.exchange, data, size) == data
        await finished(transport, protocol, peer)


async def test_pause_and_resume_within_data_received_lose_nothing(loop, side):
    def toggle(protocol):
        protocol.transport.pause_reading()
        protocol.loop.call_soon(protocol.transport.resume_reading)

    protocol = Reacting(loop, "data_received", toggle)
    async with secured(loop, side, protocol) as (transport, _, peer):
        data = os.urandom(4 << 20)
        sending = asyncio.ensure_future(asyncio.to_thread(peer.send, data))
        assert await protocol.received(len(data)) == data
        await sending
        await finished(transport, protocol, peer)


async def test_an_upgrade_begun_within_data_received(loop, side):
    """TLS inside TLS, on the spot."""
    upgrading = []
    inner = Recorder(loop)

    def upgrade(protocol):
        options = {"server_side": True} if side == "server" else {"server_hostname": NAME}
        upgrading.append(
            asyncio.ensure_future(loop.start_tls(protocol.transport, inner, contexts()[side], **options))
        )

    protocol = Reacting(loop, "data_received", upgrade)
    async with secured(loop, side, protocol) as (transport, _, outer_peer):
        await asyncio.to_thread(outer_peer.send, b"now")
        await protocol.received(3)

        class Tunnel:
            sendall = staticmethod(outer_peer.send)
            recv = staticmethod(lambda count: outer_peer.receive_some())

        peer = opposite(side, Tunnel)
        await asyncio.to_thread(peer.handshake)
        tls = await upgrading[0]
        await asyncio.to_thread(peer.send, b"secret")
        assert await inner.received(6) == b"secret"
        tls.abort()
        await inner.lost
        assert transport.is_closing()
        protocol.lost.set_result(None)


async def test_a_dropped_protocol_that_writes_when_it_dies(loop, side):
    class Clinging(Recorder):
        def __del__(self):
            self.transport.write(b"too late")
            self.transport.close()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        async with secured(loop, side) as (transport, protocol, peer):
            clinging = Clinging(loop)
            clinging.transport = transport
            transport.set_protocol(clinging)
            clinging.transport = transport
            del clinging
            transport.set_protocol(protocol)
            gc.collect()
            assert await asyncio.to_thread(peer.receive_all) == b"too late"
            await asyncio.to_thread(peer.shut)
            await protocol.lost


# Outside the loop


def test_what_is_written_in_the_last_turn_and_after_it_leaves_without_another_one(loop, side):
    async def connect(ours, theirs):
        peer = opposite(side, theirs)
        opening = open_transport(loop, side, lambda: Recorder(loop), ours)
        (transport, protocol), _ = await asyncio.gather(opening, asyncio.to_thread(peer.handshake))
        return transport, protocol, peer

    with connected_pair() as (ours, theirs):
        transport, protocol, peer = loop.run_until_complete(connect(ours, theirs))

        def write_last():
            transport.write(b"last turn, ")
            loop.stop()

        loop.call_soon(write_last)
        loop.run_forever()
        transport.write(b"outside")
        assert peer.receive(18) == b"last turn, outside"
        transport.abort()
        loop.run_until_complete(protocol.lost)


@pytest.mark.parametrize("method", ["close", "abort", "pause_reading", "resume_reading"])
async def test_a_method_refused_to_another_thread_changes_nothing(loop, is_aioxide, side, method):
    if not is_aioxide:
        pytest.skip("asyncio does not look at the thread")
    async with secured(loop, side) as (transport, protocol, peer):
        with pytest.raises(RuntimeError, match="Non-thread-safe"):
            await asyncio.to_thread(getattr(transport, method))
        assert not transport.is_closing()
        assert transport.is_reading()
        await asyncio.to_thread(peer.send, b"still")
        assert await protocol.received(5) == b"still"
        await finished(transport, protocol, peer)


@pytest.mark.parametrize("size", [1, 8_000_000])
async def test_what_another_thread_writes_leaves(loop, side, size):
    """asyncio does not promise it, and it works, except that the protocol may learn of it late."""
    async with secured(loop, side) as (transport, protocol, peer):
        receiving = asyncio.ensure_future(asyncio.to_thread(peer.receive, size))
        data = os.urandom(size)
        await asyncio.to_thread(transport.write, data)
        assert await receiving == data
        await finished(transport, protocol, peer)


async def test_many_threads_write_while_the_loop_reads(loop, is_aioxide):
    if not is_aioxide:
        pytest.skip("asyncio lets two threads into one TLS session, which may corrupt it")
    async with secured(loop, "client") as (transport, protocol, peer):
        piece, count, threads = bytes(1000), 200, 3
        size = len(piece) * count * threads
        exchange = asyncio.ensure_future(asyncio.to_thread(peer.exchange, bytes(4 << 20), size))

        def write():
            for _ in range(count):
                transport.write(piece)

        await asyncio.gather(*(asyncio.to_thread(write) for _ in range(threads)))
        assert await exchange == bytes(size)
        assert len(await protocol.received(4 << 20)) == 4 << 20
        await finished(transport, protocol, peer)


def test_one_context_serves_loops_of_several_threads(loop_factory):
    pair = contexts()
    failures = []

    async def ask():
        loop = asyncio.get_running_loop()
        for _ in range(10):
            async with secured(loop, "client", context=pair["client"], peer_context=pair["server"]) as (
                transport,
                protocol,
                peer,
            ):
                await asyncio.to_thread(peer.send, b"hello")
                assert await protocol.received(5) == b"hello"
                await finished(transport, protocol, peer)

    def run():
        try:
            with asyncio.Runner(loop_factory=loop_factory) as runner:
                runner.run(ask())
        except BaseException as error:  # handed to the thread of the test
            failures.append(error)

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_loop_closed_during_a_handshake_lets_go(loop, is_aioxide, side):
    if not is_aioxide:
        pytest.skip("asyncio leaves it to the garbage collector")

    ours, theirs = socket.socketpair()
    theirs.settimeout(20)

    async def begin(ours):
        opening = asyncio.ensure_future(open_transport(loop, side, lambda: Recorder(loop), ours))
        opening._log_destroy_pending = False
        await asyncio.sleep(0.01)

    with theirs:
        loop.run_until_complete(begin(ours))
        del ours
        loop.close()
        gc.collect()
        with contextlib.suppress(ConnectionResetError):
            while theirs.recv(1 << 16):
                pass


# Servers


@pytest.mark.parametrize("method", ["close_clients", "abort_clients"])
async def test_a_server_closes_its_tls_clients(loop, method):
    served = []

    def accept():
        served.append(Recorder(loop))
        return served[-1]

    server = await loop.create_server(accept, "127.0.0.1", 0, ssl=server_context())
    if not hasattr(server, method):
        server.close()
        pytest.skip("this Python's servers know nothing of their clients")
    address = server.sockets[0].getsockname()
    context = client_context()
    clients = []
    for _ in range(3):
        clients.append(
            await loop.create_connection(lambda: Recorder(loop), *address, ssl=context, server_hostname=NAME)
        )
    await asyncio.gather(*(protocol.made for protocol in served))
    server.close()
    getattr(server, method)()
    await server.wait_closed()
    for transport, protocol in clients:
        await protocol.lost
        assert transport.is_closing()
    await asyncio.gather(*(protocol.lost for protocol in served))


async def test_debug_mode_tells_of_handshakes(loop, side, caplog):
    loop.set_debug(True)
    with caplog.at_level(logging.DEBUG, "asyncio"):
        async with secured(loop, side) as (transport, protocol, peer):
            await finished(transport, protocol, peer)
    assert "starts SSL handshake" in caplog.text
    assert "SSL handshake took" in caplog.text


async def test_debug_mode_tells_why_a_handshake_failed(loop, side, caplog):
    loop.set_debug(True)
    with connected_pair() as (ours, theirs), caplog.at_level(logging.DEBUG, "asyncio"):
        theirs.sendall(b"this is no TLS at all, and long enough to be read as a record header")
        with pytest.raises(ssl.SSLError):
            await open_transport(loop, side, lambda: Recorder(loop), ours)
    assert "SSL handshake failed" in caplog.text


async def test_debug_mode_reports_what_a_server_could_not_accept(loop, reported):
    loop.set_debug(True)
    server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0, ssl=server_context())
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(b"this is no TLS at all, and long enough to be read as a record header")
    with contextlib.suppress(ConnectionResetError):
        await reader.read()
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
    server.close()
    await server.wait_closed()
    context = reported.pop()
    assert context["message"] == "Error on transport creation for incoming connection"
    assert isinstance(context["exception"], ssl.SSLError)


# Contexts and sessions of the user's own


async def test_a_session_class_of_the_user_is_used(loop, side):
    calls = []

    class Watching(ssl.SSLObject):
        def do_handshake(self):
            calls.append("do_handshake")
            super().do_handshake()

        def read(self, *arguments):
            calls.append("read")
            return super().read(*arguments)

        def write(self, data):
            calls.append("write")
            return super().write(data)

        def unwrap(self):
            calls.append("unwrap")
            return super().unwrap()

    context = contexts()[side]
    context.sslobject_class = Watching
    async with secured(loop, side, context=context) as (transport, protocol, peer):
        assert type(transport.get_extra_info("ssl_object")) is Watching
        await asyncio.to_thread(peer.send, b"question")
        assert await protocol.received(8) == b"question"
        transport.write(b"answer")
        assert await asyncio.to_thread(peer.receive, 6) == b"answer"
        await finished(transport, protocol, peer)
    assert set(calls) == {"do_handshake", "read", "write", "unwrap"}


async def test_a_certificate_may_be_asked_for_after_the_handshake(loop, is_aioxide):
    pair = contexts(ssl.TLSVersion.TLSv1_3)
    demand_client_certificate(pair["server"], ssl.CERT_OPTIONAL)
    pair["client"].post_handshake_auth = True
    pair["server"].post_handshake_auth = True
    show_client_certificate(pair["client"])
    async with secured(loop, "server", context=pair["server"], peer_context=pair["client"]) as (
        transport,
        protocol,
        peer,
    ):
        tls = transport.get_extra_info("ssl_object")
        assert tls.getpeercert() is None
        tls.verify_client_post_handshake()
        transport.write(b"who are you?")
        assert await asyncio.to_thread(peer.receive, 12) == b"who are you?"
        await asyncio.to_thread(peer.send, b"me")
        assert await protocol.received(2) == b"me"
        assert tls.getpeercert()["subjectAltName"] == (("DNS", CLIENT_NAME),)
        # asyncio tells what the handshake told; aioxide asks when it is asked.
        assert (transport.get_extra_info("peercert") == tls.getpeercert()) is is_aioxide
        await finished(transport, protocol, peer)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="Python's ssl cannot change keys")
async def test_new_keys_of_the_peer_do_not_disturb(loop):
    protocol = Recorder(loop)
    context = contexts(ssl.TLSVersion.TLSv1_3)["server"]
    server = await loop.create_server(lambda: protocol, "127.0.0.1", 0, ssl=context)
    command = ("openssl", "s_client", "-connect", "{}:{}".format(*server.sockets[0].getsockname()))
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as client:

        def tell(line, answer):
            client.stdin.write(line)
            client.stdin.flush()
            while answer and answer not in (printed := client.stderr.readline()):
                assert printed, "the client ended"

        for number, key in enumerate((b"k\n", b"K\n"), 1):  # its own keys; its own and ours
            await asyncio.to_thread(tell, key, b"KEYUPDATE")
            tell(b"hello\n", b"")
            assert await protocol.received(6 * number) == b"hello\n" * number
        protocol.transport.write(b"the answer")
        protocol.transport.close()
        # It ends when we do. Were its input to end before, it would not wait for an answer.
        told = await asyncio.to_thread(client.stdout.read)
        await protocol.lost
    assert b"the answer" in told
    server.close()
    await server.wait_closed()


async def test_an_sni_callback_that_fails_refuses_the_connection(loop, monkeypatch):
    def fail(tls, name, original):
        raise LookupError("wrong")

    unraisable = []
    monkeypatch.setattr(sys, "unraisablehook", lambda told: unraisable.append(told.exc_type))
    context = server_context()
    context.sni_callback = fail
    with connected_pair() as (ours, theirs):
        peer = opposite("server", theirs)
        outcomes = await asyncio.gather(
            loop.connect_accepted_socket(lambda: Recorder(loop), ours, ssl=context),
            asyncio.to_thread(peer.handshake),
            return_exceptions=True,
        )
        assert isinstance(outcomes[0], ssl.SSLError)
        assert isinstance(outcomes[1], (ssl.SSLError, EOFError, ConnectionError))
    assert unraisable == [LookupError]


async def test_an_address_may_be_the_name(loop):
    """A certificate for an address, found by default from the host."""
    server = await loop.create_server(lambda: Recorder(loop), "127.0.0.1", 0, ssl=server_context("127.0.0.1"))
    transport, protocol = await loop.create_connection(
        lambda: Recorder(loop), *server.sockets[0].getsockname(), ssl=client_context()
    )
    assert transport.get_extra_info("peercert")["subjectAltName"] == (("IP Address", "127.0.0.1"),)
    transport.close()
    await protocol.lost
    server.close()
    await server.wait_closed()


async def test_data_that_a_stream_reader_holds_at_an_upgrade_belongs_to_tls(loop, is_aioxide):
    """A client that does not wait for the answer sends its hello together with its command."""
    if not is_aioxide:
        pytest.skip("asyncio before 3.15 loses it")
    lines = []
    served = loop.create_future()

    async def serve(reader, writer):
        lines.append(await reader.readline())
        await writer.start_tls(server_context())
        lines.append(await reader.readline())
        writer.close()
        await writer.wait_closed()
        served.set_result(None)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)

    def hurry():
        with socket.create_connection(server.sockets[0].getsockname()) as sock:
            sock.settimeout(20)
            peer = TlsPeer(sock, client_context(), server_side=False)
            with contextlib.suppress(ssl.SSLWantReadError):
                peer.tls.do_handshake()
            sock.sendall(b"STARTTLS\n" + peer.outgoing.read())
            peer.handshake()
            peer.send(b"secret\n")
            assert peer.receive_all() == b""
            peer.shut()

    await asyncio.to_thread(hurry)
    await served
    assert lines == [b"STARTTLS\n", b"secret\n"]
    server.close()
    await server.wait_closed()
