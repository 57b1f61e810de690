"""TLS connections, client and server: making them, what flows, what is told of them, and how they end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import socket
import ssl
import warnings
import weakref

import pytest
from peers import connected_pair, listening
from recorder import Recorder
from tls_peers import (
    NAME,
    TlsPeer,
    client_context,
    contexts,
    finished,
    open_transport,
    opposite,
    secured,
    server_context,
)

pytestmark = pytest.mark.usefixtures("tls_engine")

VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


@pytest.mark.parametrize("version", VERSIONS)
async def test_data_flows_both_ways_on_every_version(loop, side, version):
    pair = contexts(VERSIONS[version])
    other = "server" if side == "client" else "client"
    async with secured(loop, side, context=pair[side], peer_context=pair[other]) as (
        transport,
        protocol,
        peer,
    ):
        await asyncio.to_thread(peer.send, b"question")
        assert await protocol.received(8) == b"question"
        transport.write(b"answer")
        assert await asyncio.to_thread(peer.receive, 6) == b"answer"
        assert transport.get_extra_info("cipher")[1].startswith("TLSv1")
        assert transport.get_extra_info("ssl_object").version() == f"TLSv{version}"
        await finished(transport, protocol, peer)


async def test_a_tcp_client_and_a_tcp_server_of_the_loop(loop):
    accepted = loop.create_future()

    def accept():
        protocol = Recorder(loop)
        accepted.set_result(protocol)
        return protocol

    server = await loop.create_server(accept, "127.0.0.1", 0, ssl=server_context())
    transport, client = await loop.create_connection(
        lambda: Recorder(loop), *server.sockets[0].getsockname(), ssl=client_context(), server_hostname=NAME
    )
    served = await accepted
    await served.made
    transport.write(b"question")
    assert await served.received(8) == b"question"
    served.transport.write(b"answer")
    assert await client.received(6) == b"answer"
    transport.close()
    assert await client.lost is None
    assert await served.lost is None
    assert served.calls == ["connection_made", "data_received", "eof_received", "connection_lost"]
    server.close()
    await server.wait_closed()


async def test_a_unix_client_and_a_unix_server_of_the_loop(loop, tmp_path):
    served = Recorder(loop)
    path = str(tmp_path / "socket")
    server = await loop.create_unix_server(lambda: served, path, ssl=server_context())
    transport, client = await loop.create_unix_connection(
        lambda: Recorder(loop), path, ssl=client_context(), server_hostname=NAME
    )
    await served.made
    data = os.urandom(1 << 20)
    transport.write(data)
    assert await served.received(len(data)) == data
    served.transport.write(data)
    assert await client.received(len(data)) == data
    served.transport.close()
    assert await served.lost is None
    assert await client.lost is None
    server.close()
    await server.wait_closed()


async def test_the_name_of_the_host_is_the_name_expected_by_default(loop):
    with listening() as listener:
        port = listener.getsockname()[1]

        def serve():
            sock, _ = listener.accept()
            sock.settimeout(20)
            peer = TlsPeer(sock, server_context(), server_side=True)
            peer.handshake()
            return peer

        (transport, protocol), peer = await asyncio.gather(
            loop.create_connection(
                lambda: Recorder(loop), "localhost", port, ssl=client_context(), family=socket.AF_INET
            ),
            asyncio.to_thread(serve),
        )
        assert transport.get_extra_info("ssl_object").server_hostname == "localhost"
        await finished(transport, protocol, peer)


async def test_an_end_by_the_peer_is_answered(loop, side):
    async with secured(loop, side) as (transport, protocol, peer):
        await asyncio.to_thread(peer.send, b"last")
        await asyncio.to_thread(peer.shut)
        assert await protocol.lost is None
        assert protocol.data == b"last"
        assert protocol.calls == ["connection_made", "data_received", "eof_received", "connection_lost"]
        assert transport.is_closing()


async def test_data_and_end_in_one_piece_arrive_in_order(loop, side):
    async with secured(loop, side) as (_, protocol, peer):
        records = peer.encrypt(b"one") + peer.encrypt(b"two")
        with pytest.raises(ssl.SSLWantReadError):
            peer.tls.unwrap()
        peer.sock.sendall(records + peer.outgoing.read())
        assert await protocol.lost is None
        assert protocol.data == b"onetwo"
        assert protocol.calls == ["connection_made", "data_received", "eof_received", "connection_lost"]


async def test_close_waits_for_the_answer_of_the_peer(loop, side):
    async with secured(loop, side) as (transport, protocol, peer):
        transport.close()
        assert transport.is_closing()
        assert await asyncio.to_thread(peer.receive_all) == b""
        await asyncio.sleep(0.02)
        assert not protocol.lost.done()
        await asyncio.to_thread(peer.shut)
        assert await protocol.lost is None
        assert protocol.calls[-1] == "connection_lost"


async def test_close_sends_what_was_written_first(loop, side):
    async with secured(loop, side) as (transport, protocol, peer):
        data = os.urandom(8 << 20)
        transport.write(data)
        transport.close()
        assert await asyncio.to_thread(peer.receive_all) == data
        await asyncio.to_thread(peer.shut)
        assert await protocol.lost is None


async def test_abort_does_not_wait_for_anyone(loop, side):
    async with secured(loop, side) as (transport, protocol, _):
        for _ in range(64):
            transport.write(bytes(1 << 20))
        transport.abort()
        transport.abort()
        assert transport.is_closing()
        assert not protocol.lost.done()
        assert await protocol.lost is None
        assert protocol.calls.count("connection_lost") == 1


async def test_abort_while_closing_ends_at_once(loop, side):
    async with secured(loop, side) as (transport, protocol, _):
        transport.close()
        transport.abort()
        assert await protocol.lost is None
        assert protocol.calls.count("connection_lost") == 1


async def test_connection_lost_is_called_on_a_later_turn(loop, side):
    class Closing(Recorder):
        def eof_received(self):
            super().eof_received()
            self.transport.close()
            self.transport.abort()
            assert self.calls[-1] == "eof_received"

    async with secured(loop, side, Closing(loop)) as (_, protocol, peer):
        await asyncio.to_thread(peer.close_notify)
        assert await protocol.lost is None
        assert protocol.calls == ["connection_made", "eof_received", "connection_lost"]


async def test_keeping_open_on_eof_has_no_effect(loop, side, caplog):
    async with secured(loop, side, Recorder(loop, keep_open_on_eof=True)) as (_, protocol, peer):
        await asyncio.to_thread(peer.shut)
        assert await protocol.lost is None
    assert "returning true from eof_received() has no effect when using ssl" in caplog.text


async def test_one_half_cannot_be_closed_alone(loop, side):
    async with secured(loop, side) as (transport, protocol, peer):
        assert transport.can_write_eof() is False
        with pytest.raises(NotImplementedError):
            transport.write_eof()
        await finished(transport, protocol, peer)


async def test_a_server_of_ssl_objects_reads_until_eof_then_answers(loop):
    """A peer that has said its last may still be answered by what is written in eof_received."""

    class Answering(Recorder):
        def eof_received(self):
            self.transport.write(b"answer to " + self.data)
            return super().eof_received()

    async with secured(loop, "server", Answering(loop)) as (_, protocol, peer):
        await asyncio.to_thread(peer.send, b"question")
        await asyncio.to_thread(peer.close_notify)
        assert await asyncio.to_thread(peer.receive_all) == b"answer to question"
        assert await protocol.lost is None


async def test_many_small_writes_arrive_in_order(loop, side):
    async with secured(loop, side) as (transport, protocol, peer):
        pieces = [b"%d," % number for number in range(5000)]
        expected = b"".join(pieces)
        for piece in pieces:
            transport.write(piece)
        assert await asyncio.to_thread(peer.receive, len(expected)) == expected
        await finished(transport, protocol, peer)


async def test_small_and_large_writes_arrive_in_order(loop, side):
    async with secured(loop, side) as (transport, protocol, peer):
        sizes = (1, 100_000, 3, 16384, 16385, 16383, 500_000, 2, 8192, 1)
        pieces = [os.urandom(size) for size in sizes] * 3
        expected = b"".join(pieces)
        receiving = asyncio.ensure_future(asyncio.to_thread(peer.receive, len(expected)))
        for number, piece in enumerate(pieces):
            transport.write(piece)
            if number % 3 == 0:
                await asyncio.sleep(0)
        assert await receiving == expected
        await finished(transport, protocol, peer)


async def test_writelines_sends_every_piece(loop, side):
    async with secured(loop, side) as (transport, protocol, peer):
        pieces = [os.urandom(size) for size in range(1, 3000, 7)]
        transport.writelines(pieces)
        transport.writelines([])
        transport.writelines(bytearray(piece) for piece in pieces)
        transport.writelines(memoryview(piece) for piece in pieces)
        expected = b"".join(pieces) * 3
        assert await asyncio.to_thread(peer.receive, len(expected)) == expected
        await finished(transport, protocol, peer)


async def test_a_bytearray_changed_after_write_does_not_change_what_is_sent(loop, side):
    async with secured(loop, side) as (transport, protocol, peer):
        expected = b""
        for size in (10, 5000, 70_000, 2_000_000):
            data = bytearray(os.urandom(size))
            expected += bytes(data)
            transport.write(data)
            data[:] = bytes(size)
            view = memoryview(bytearray(b"view"))
            transport.write(view)
            view[:] = b"...."
            expected += b"view"
        assert await asyncio.to_thread(peer.receive, len(expected)) == expected
        await finished(transport, protocol, peer)


async def test_a_bytearray_can_be_resized_after_write(loop, side):
    async with secured(loop, side) as (transport, protocol, peer):
        data = bytearray(b"hello")
        transport.write(data)
        data.clear()
        data += b"resized to something longer"
        assert await asyncio.to_thread(peer.receive, 5) == b"hello"
        await finished(transport, protocol, peer)


async def test_an_empty_write_is_nothing(loop, side):
    async with secured(loop, side) as (transport, protocol, peer):
        for empty in (b"", bytearray(), memoryview(b"")):
            transport.write(empty)
        assert transport.get_write_buffer_size() == 0
        transport.write(b"x")
        assert await asyncio.to_thread(peer.receive, 1) == b"x"
        await finished(transport, protocol, peer)


@pytest.mark.parametrize("wrong", ["text", None, 42, [b"list"]], ids=repr)
async def test_only_bytes_can_be_written(loop, side, wrong):
    async with secured(loop, side) as (transport, protocol, peer):
        with pytest.raises(TypeError):
            transport.write(wrong)
        await finished(transport, protocol, peer)


async def test_what_is_written_after_close_is_not_sent(loop, side):
    async with secured(loop, side) as (transport, protocol, peer):
        transport.write(b"last")
        transport.close()
        transport.write(b"too late")
        assert await asyncio.to_thread(peer.receive_all) == b"last"
        await asyncio.to_thread(peer.shut)
        assert await protocol.lost is None


async def test_writing_to_a_lost_connection_is_logged_and_harmless(loop, side, caplog):
    async with secured(loop, side) as (transport, protocol, _):
        transport.abort()
        await protocol.lost
        for _ in range(20):
            transport.write(b"x")
        assert "SSL connection is closed" in caplog.text


@pytest.mark.parametrize("size", [1 << 20, 64 << 20], ids=["1 MiB", "64 MiB"])
async def test_much_data_flows_both_ways_at_once(loop, size):
    async with secured(loop, "client") as (transport, protocol, peer):
        ours, theirs = os.urandom(1 << 20) * (size >> 20), os.urandom(1 << 20) * (size >> 20)
        exchange = asyncio.ensure_future(asyncio.to_thread(peer.exchange, theirs, size))
        for start in range(0, size, 1 << 18):
            await protocol.writable.wait()
            transport.write(memoryview(ours)[start : start + (1 << 18)])
        assert await protocol.received(size) == theirs
        assert await exchange == ours
        await finished(transport, protocol, peer)


async def test_records_may_arrive_byte_by_byte(loop, side):
    async with secured(loop, side) as (transport, protocol, peer):
        for byte in peer.encrypt(b"first") + peer.encrypt(b"second"):
            peer.sock.sendall(bytes([byte]))
            await asyncio.sleep(0)
        assert await protocol.received(11) == b"firstsecond"
        await finished(transport, protocol, peer)


async def test_a_record_that_is_not_whole_is_not_delivered(loop, side):
    async with secured(loop, side) as (transport, protocol, peer):
        records = peer.encrypt(bytes(16384))
        peer.sock.sendall(records[:-1])
        await asyncio.sleep(0.02)
        assert protocol.data == b""
        peer.sock.sendall(records[-1:])
        assert await protocol.received(16384) == bytes(16384)
        await finished(transport, protocol, peer)


async def test_data_that_comes_with_the_handshake_is_delivered_after_connection_made(loop):
    with connected_pair() as (ours, theirs):
        pair = contexts()
        peer = opposite("server", theirs, pair["client"])
        opening = asyncio.ensure_future(
            loop.connect_accepted_socket(lambda: Recorder(loop), ours, ssl=pair["server"])
        )

        def shake_hands_and_speak():
            # The client's last flight and its first data, in one piece.
            with contextlib.suppress(ssl.SSLWantReadError):
                peer.tls.do_handshake()
            peer.flush()
            while True:
                peer._fill()
                try:
                    peer.tls.do_handshake()
                except ssl.SSLWantReadError:
                    peer.flush()
                else:
                    break
            peer.tls.write(b"early")
            peer.flush()

        await asyncio.to_thread(shake_hands_and_speak)
        transport, protocol = await opening
        assert await protocol.received(5) == b"early"
        assert protocol.calls[:2] == ["connection_made", "data_received"]
        await finished(transport, protocol, peer)


async def test_extra_info_tells_everything_asyncio_tells(loop, side):
    pair = contexts()
    async with secured(loop, side, context=pair[side]) as (transport, protocol, peer):
        info = transport.get_extra_info
        assert info("sslcontext") is pair[side]
        assert transport._ssl_protocol._sslcontext is pair[side]  # aiohttp's own tests look there
        tls = info("ssl_object")
        assert isinstance(tls, ssl.SSLObject)
        assert info("cipher") == tls.cipher() == peer.tls.cipher()
        assert info("compression") is None
        assert tls.server_side is (side == "server")
        if side == "client":
            names = [name for kind, name in info("peercert")["subjectAltName"] if kind == "DNS"]
            assert names == [NAME]
        else:
            assert info("peercert") is None
        assert info("sockname") == peer.sock.getpeername()
        assert info("peername") == peer.sock.getsockname()
        assert info("socket").getsockname() == info("sockname")
        assert info("missing") is None
        assert info("missing", "default") == "default"
        await finished(transport, protocol, peer)


async def test_extra_info_stays_after_the_end(loop, side):
    async with secured(loop, side) as (transport, protocol, peer):
        cipher = transport.get_extra_info("cipher")
        await asyncio.to_thread(peer.shut)
        await protocol.lost
        assert transport.get_extra_info("cipher") == cipher
        assert transport.get_extra_info("ssl_object").cipher() == cipher


async def test_the_certificate_is_known_in_connection_made(loop):
    seen = []

    class Curious(Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            seen.append((transport.get_extra_info("peercert"), transport.get_extra_info("cipher")))

    async with secured(loop, "client", Curious(loop)) as (transport, protocol, peer):
        certificate, cipher = seen[0]
        assert certificate["subjectAltName"] == (("DNS", NAME),)
        assert cipher == peer.tls.cipher()
        await finished(transport, protocol, peer)


async def test_what_is_written_in_connection_made_is_sent(loop, side):
    class Greeting(Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            transport.write(b"hello")

    async with secured(loop, side, Greeting(loop)) as (transport, protocol, peer):
        assert await asyncio.to_thread(peer.receive, 5) == b"hello"
        await finished(transport, protocol, peer)


async def test_a_transport_may_be_closed_in_connection_made(loop, side):
    class Brief(Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            transport.write(b"bye")
            transport.close()

    async with secured(loop, side, Brief(loop)) as (transport, protocol, peer):
        assert await asyncio.to_thread(peer.receive_all) == b"bye"
        await asyncio.to_thread(peer.shut)
        assert await protocol.lost is None
        assert transport.is_closing()


@pytest.mark.parametrize("ending", ["close", "abort"])
async def test_a_transport_may_be_ended_in_data_received(loop, side, ending):
    class Brief(Recorder):
        def data_received(self, data):
            super().data_received(data)
            getattr(self.transport, ending)()

    async with secured(loop, side, Brief(loop)) as (_, protocol, peer):
        await asyncio.to_thread(peer.send, b"enough")
        if ending == "close":
            await asyncio.to_thread(peer.shut)
        assert await protocol.lost is None
        assert protocol.data == b"enough"


async def test_protocols_can_follow_each_other(loop, side):
    async with secured(loop, side) as (transport, first, peer):
        assert transport.get_protocol() is first
        await asyncio.to_thread(peer.send, b"one")
        assert await first.received(3) == b"one"
        second = Recorder(loop)
        transport.set_protocol(second)
        assert transport.get_protocol() is second
        await asyncio.to_thread(peer.send, b"two")
        assert await second.received(3) == b"two"
        await asyncio.to_thread(peer.shut)
        assert await second.lost is None
        assert not first.lost.done()
        assert first.data == b"one"
        first.lost.set_result(None)


async def test_a_protocol_set_in_data_received_gets_the_next_data(loop, side):
    second = Recorder(loop)

    class Handing(Recorder):
        def data_received(self, data):
            super().data_received(data)
            self.transport.set_protocol(second)

    async with secured(loop, side, Handing(loop)) as (_, first, peer):
        await asyncio.to_thread(peer.send, b"one")
        assert await first.received(3) == b"one"
        await asyncio.to_thread(peer.send, b"two")
        assert await second.received(3) == b"two"
        await asyncio.to_thread(peer.shut)
        assert await second.lost is None
        first.lost.set_result(None)


async def test_a_transport_is_asyncios(loop, side):
    async with secured(loop, side) as (transport, protocol, peer):
        assert isinstance(transport, asyncio.Transport)
        assert not transport.is_closing()
        assert transport.is_reading()
        assert repr(transport)
        await finished(transport, protocol, peer)
        assert repr(transport)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_connection_left_open_by_its_loop_warns(loop, side):
    with connected_pair() as (ours, theirs):
        peer = opposite(side, theirs)

        async def leave_open():
            await asyncio.gather(
                open_transport(loop, side, asyncio.Protocol, ours), asyncio.to_thread(peer.handshake)
            )
            await loop.shutdown_default_executor()

        loop.run_until_complete(leave_open())
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            loop.close()
            gc.collect()
        warned = [str(warning.message) for warning in caught if warning.category is ResourceWarning]
        assert any("unclosed transport" in message for message in warned)


async def test_a_closed_connection_does_not_warn(loop, side):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        async with secured(loop, side) as (transport, protocol, peer):
            await finished(transport, protocol, peer)
        del transport, protocol
        await asyncio.sleep(0)
        gc.collect()
    assert caught == []


async def test_nothing_of_a_connection_outlives_it(loop, side):
    async with secured(loop, side) as (transport, protocol, peer):
        await asyncio.to_thread(peer.send, b"data")
        await protocol.received(4)
        tls = transport.get_extra_info("ssl_object")
        references = [weakref.ref(thing) for thing in (protocol, tls)]
        await finished(transport, protocol, peer)
    await asyncio.sleep(0)
    del transport, protocol, tls
    gc.collect()
    assert [reference() for reference in references] == [None, None]


async def test_streams_over_tls(loop):
    async def serve(reader, writer):
        line = await reader.readline()
        writer.write(line.upper())
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=server_context())
    for _ in range(5):
        reader, writer = await asyncio.open_connection(
            *server.sockets[0].getsockname(), ssl=client_context(), server_hostname=NAME
        )
        writer.write(b"hello\n")
        await writer.drain()
        assert await reader.readline() == b"HELLO\n"
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
    server.close()
    await server.wait_closed()


async def test_a_hundred_connections_at_once(loop):
    def serve():
        class Echo(asyncio.Protocol):
            def connection_made(self, transport):
                self.transport = transport

            def data_received(self, data):
                self.transport.write(data)

        return Echo()

    server = await loop.create_server(serve, "127.0.0.1", 0, ssl=server_context())
    address = server.sockets[0].getsockname()
    context = client_context()

    async def ask(number):
        transport, protocol = await loop.create_connection(
            lambda: Recorder(loop), *address, ssl=context, server_hostname=NAME
        )
        question = b"%06d" % number * 1000
        transport.write(question)
        assert await protocol.received(len(question)) == question
        transport.close()
        assert await protocol.lost is None

    await asyncio.gather(*(ask(number) for number in range(100)))
    server.close()
    await server.wait_closed()
