"""TLS by Python's objects alone, and by the OpenSSL inside them: nobody can tell the two apart."""

from __future__ import annotations

import asyncio
import gc
import os
import ssl
import subprocess
import sys
import weakref

import aioxide
import pytest
from peers import connected_pair
from recorder import Recorder
from tls_peers import (
    ViewRecorder,
    contexts,
    demand_client_certificate,
    finished,
    open_transport,
    opposite,
    secured,
    server_context,
)


def direct_is_possible() -> bool:
    return aioxide.build_info()["tls"] == "direct"


# Which one


@pytest.mark.parametrize("engine", ["python", "direct"])
def test_the_environment_chooses_and_build_info_tells(monkeypatch, engine):
    monkeypatch.delenv("AIOXIDE_TLS", raising=False)
    if engine == "direct" and not direct_is_possible():
        pytest.skip(aioxide.build_info()["tls_reason"])
    monkeypatch.setenv("AIOXIDE_TLS", engine)
    info = aioxide.build_info()
    assert info["tls"] == engine
    assert "AIOXIDE_TLS" in info["tls_reason"]


async def test_another_engine_is_an_error_that_names_it(loop, is_aioxide, monkeypatch):
    if not is_aioxide:
        pytest.skip("asyncio has no choice")
    monkeypatch.setenv("AIOXIDE_TLS", "rustls")
    with connected_pair() as (ours, _), pytest.raises(ValueError, match="rustls"):
        await open_transport(loop, "client", asyncio.Protocol, ours)
    with pytest.raises(ValueError, match="rustls"):
        aioxide.build_info()


ELSEWHERE = {
    "built in": ("import _ssl; del _ssl.__file__", "built into"),
    "another library": ("import ssl; ssl.OPENSSL_VERSION = 'LibreSSL 3.9.2'", "LibreSSL 3.9.2"),
    "no library": ("import _ssl; _ssl.__file__ = '/no/such/file.so'", "not loaded"),
    "without a lock": ("import sys; sys.abiflags = 't'", "several threads"),
}


@pytest.mark.parametrize("case", ELSEWHERE)
def test_where_openssl_is_not_found_python_does_it_and_build_info_says_why(case):
    prepare, reason = ELSEWHERE[case]
    program = f"""
import asyncio, os, socket, ssl, aioxide
{prepare}
info = aioxide.build_info()
assert info["tls"] == "python", info
assert {reason!r} in info["tls_reason"], info

async def connect():
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        await loop.create_connection(asyncio.Protocol, sock=ours, ssl=True, server_hostname="x")

os.environ["AIOXIDE_TLS"] = "direct"
try:
    aioxide.run(connect())
except RuntimeError as error:
    assert {reason!r} in str(error), error
else:
    raise AssertionError("there is no direct TLS")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


# The same errors

BROKEN = {
    "corrupted": "DECRYPTION_FAILED_OR_BAD_RECORD_MAC",
    "too long": "PACKET_LENGTH_TOO_LONG",
    "another version": "WRONG_VERSION_NUMBER",
}


def broken(kind: str, record: bytes) -> bytes:
    """Return a record that is broken in one way."""
    match kind:
        case "corrupted":
            return record[:-1] + bytes([record[-1] ^ 1])
        case "too long":
            return record[:3] + b"\xff\xff" + record[5:]
        case _:
            return record[:1] + b"\x07\x07" + record[3:]


@pytest.mark.usefixtures("tls_engine")
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("kind", BROKEN)
async def test_what_fails_while_reading_fails_in_pythons_words(loop, version, kind):
    pair = contexts(version)
    async with secured(loop, "server", context=pair["server"], peer_context=pair["client"]) as (
        _,
        protocol,
        peer,
    ):
        await asyncio.to_thread(peer.send, b"good")
        await protocol.received(4)
        peer.sock.sendall(broken(kind, peer.encrypt(b"bad")))
        error = await protocol.lost
    assert type(error) is ssl.SSLError
    # Newer ones say in the end just where they found it.
    reason = BROKEN[kind] if ssl.OPENSSL_VERSION_INFO < (3, 2) else "RECORD_LAYER_FAILURE"
    assert (error.library, error.reason) == ("SSL", reason)
    assert error.errno == ssl.SSL_ERROR_SSL
    assert str(error).startswith(f"[SSL: {error.reason}] ")
    assert "(_ssl.c:" in str(error)


@pytest.mark.usefixtures("tls_engine")
async def test_an_alert_that_comes_after_the_handshake_is_told_in_pythons_words(loop):
    """A TLS 1.3 client is done before the server looks for its certificate."""
    pair = contexts(ssl.TLSVersion.TLSv1_3)
    demand_client_certificate(pair["server"])
    protocol = Recorder(loop)
    with connected_pair() as (ours, theirs):
        peer = opposite("client", theirs, pair["server"])
        answers = await asyncio.gather(
            open_transport(loop, "client", lambda: protocol, ours, pair["client"]),
            asyncio.to_thread(peer.handshake),
            return_exceptions=True,
        )
        assert isinstance(answers[1], ssl.SSLError)
        error = await protocol.lost
    assert type(error) is ssl.SSLError
    assert (error.library, error.reason) == ("SSL", "TLSV13_ALERT_CERTIFICATE_REQUIRED")


@pytest.mark.usefixtures("tls_engine")
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_an_error_on_one_connection_is_not_told_to_another(loop, version):
    """OpenSSL's list of errors is the thread's."""
    pair = contexts(version)
    options = {"context": pair["server"], "peer_context": pair["client"]}
    async with (
        secured(loop, "server", **options) as (_, failing, bad),
        secured(loop, "server", **options) as (transport, protocol, peer),
    ):
        ssl_object = transport.get_extra_info("ssl_object")
        bad.sock.sendall(broken("corrupted", bad.encrypt(b"bad")))
        assert isinstance(await failing.lost, ssl.SSLError)
        transport.write(b"still")
        assert await asyncio.to_thread(peer.receive, 5) == b"still"
        await asyncio.to_thread(peer.send, b"here")
        assert await protocol.received(4) == b"here"
        with pytest.raises(ssl.SSLWantReadError):
            ssl_object.read(1)
        await finished(transport, protocol, peer)


# What else Python's objects do


@pytest.mark.usefixtures("tls_engine")
async def test_what_was_not_delivered_can_be_read_from_the_ssl_object(loop):
    async with secured(loop, "server") as (transport, protocol, peer):
        transport.pause_reading()
        await asyncio.to_thread(peer.send, b"hello")
        await asyncio.to_thread(peer.send, b" world")
        # Both records: each has a header and a tag besides its text.
        while transport.get_read_buffer_size() < len(b"hello world") + 2 * (5 + 16):
            await asyncio.sleep(0)
        ssl_object = transport.get_extra_info("ssl_object")
        assert ssl_object.read(2) == b"he"
        assert ssl_object.pending() == 3
        transport.resume_reading()
        assert await protocol.received(9) == b"llo world"
        await finished(transport, protocol, peer)


@pytest.mark.usefixtures("tls_engine")
async def test_what_is_written_to_the_ssl_object_leaves_with_the_next_write(loop):
    async with secured(loop, "server") as (transport, protocol, peer):
        assert transport.get_extra_info("ssl_object").write(b"hello") == 5
        transport.write(b" world")
        assert await asyncio.to_thread(peer.receive, 11) == b"hello world"
        await finished(transport, protocol, peer)


@pytest.mark.usefixtures("tls_engine")
async def test_the_ssl_object_outlives_its_connection(loop):
    async with secured(loop, "server") as (transport, protocol, peer):
        ssl_object = transport.get_extra_info("ssl_object")
        version = ssl_object.version()
        await finished(transport, protocol, peer)
    del transport, protocol, peer
    gc.collect()
    assert ssl_object.cipher() is not None
    assert version.startswith("TLSv1")
    with pytest.raises(ssl.SSLError):
        ssl_object.read(1)
    with pytest.raises(ssl.SSLError):
        ssl_object.write(b"x")


@pytest.mark.usefixtures("tls_engine")
async def test_messages_are_told_to_whom_the_context_says(loop):
    told = []
    context = server_context()
    context._msg_callback = lambda tls, direction, *rest: told.append((tls, direction))
    async with secured(loop, "server", context=context) as (transport, protocol, peer):
        ssl_object = transport.get_extra_info("ssl_object")
        told.clear()
        await asyncio.to_thread(peer.send, b"question")
        await protocol.received(8)
        assert (ssl_object, "read") in told
        transport.write(b"answer")
        await asyncio.to_thread(peer.receive, 6)
        assert (ssl_object, "write") in told
        await finished(transport, protocol, peer)


@pytest.mark.usefixtures("tls_engine")
async def test_secrets_are_logged_where_the_context_says(loop, tmp_path):
    context = server_context()
    context.keylog_filename = str(tmp_path / "secrets")
    async with secured(loop, "server", context=context) as (transport, protocol, peer):
        await asyncio.to_thread(peer.send, b"question")
        assert await protocol.received(8) == b"question"
        await finished(transport, protocol, peer)
    assert "SERVER_TRAFFIC_SECRET_0" in (tmp_path / "secrets").read_text()


class OwnObject(ssl.SSLObject):
    """Counts what is read and written."""

    reads = writes = 0

    def read(self, *arguments):
        type(self).reads += 1
        return super().read(*arguments)

    def write(self, data):
        type(self).writes += 1
        return super().write(data)


@pytest.mark.usefixtures("tls_engine")
async def test_a_users_own_ssl_object_is_what_reads_and_writes(loop):
    context = server_context()
    context.sslobject_class = OwnObject
    OwnObject.reads = OwnObject.writes = 0
    async with secured(loop, "server", context=context) as (transport, protocol, peer):
        await asyncio.to_thread(peer.send, b"question")
        assert await protocol.received(8) == b"question"
        transport.write(b"answer")
        assert await asyncio.to_thread(peer.receive, 6) == b"answer"
        await finished(transport, protocol, peer)
    assert OwnObject.reads > 0
    assert OwnObject.writes > 0


class Delegating(ssl.SSLContext):
    """Hands on what another context makes, as the contexts that use a system's certificates do."""

    def __init__(self, protocol: int) -> None:
        self.other = server_context()

    def wrap_bio(self, *arguments, **keywords):
        superfluous = server_context().wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_side=True)
        made = self.other.wrap_bio(*arguments, **keywords)
        del superfluous
        return made


@pytest.mark.usefixtures("tls_engine")
@pytest.mark.parametrize("listens", [False, True])
async def test_a_context_may_have_another_make_its_objects(loop, listens):
    told = []
    context = Delegating(ssl.PROTOCOL_TLS_SERVER)
    if listens:
        context.other._msg_callback = lambda *message: told.append(message)
    async with secured(loop, "server", context=context) as (transport, protocol, peer):
        told.clear()
        await asyncio.to_thread(peer.send, b"question")
        assert await protocol.received(8) == b"question"
        transport.write(b"answer")
        assert await asyncio.to_thread(peer.receive, 6) == b"answer"
        assert bool(told) == listens
        await finished(transport, protocol, peer)


# Bytes, in any pieces


@pytest.mark.usefixtures("tls_engine")
@pytest.mark.parametrize("size", [1, 7, 1000, 20_000])
async def test_records_may_arrive_in_any_pieces(loop, size):
    data = os.urandom(40_000)
    async with secured(loop, "server") as (transport, protocol, peer):
        records = b"".join(peer.encrypt(data[start : start + 4000]) for start in range(0, len(data), 4000))
        sent = 0
        for start in range(0, 12_000, size) if size < 1000 else range(0, len(records), size):
            peer.sock.sendall(records[start : start + size])
            sent = start + size
            await asyncio.sleep(0)
        peer.sock.sendall(records[sent:])
        assert await protocol.received(len(data)) == data
        await finished(transport, protocol, peer)


@pytest.mark.usefixtures("tls_engine")
@pytest.mark.parametrize("size", [1, 100, 16_384, 100_000])
async def test_a_buffered_protocol_gets_all_whatever_its_memory(loop, size):
    data = os.urandom(size * 20 if size < 1000 else 1_000_000)
    protocol = ViewRecorder(loop, size)
    async with secured(loop, "server", protocol) as (transport, _, peer):
        await asyncio.to_thread(peer.send, data)
        await protocol.received(len(data))
        assert protocol.data == data
        await finished(transport, protocol, peer)


class Pausing(Recorder):
    """Pauses at each piece, and goes on in the next turn."""

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self.transport.pause_reading()
        self.loop.call_soon(self.transport.resume_reading)


@pytest.mark.usefixtures("tls_engine")
async def test_pauses_lose_nothing_and_change_no_order(loop):
    data = os.urandom(2_000_000)
    async with secured(loop, "server", Pausing(loop)) as (transport, protocol, peer):
        await asyncio.to_thread(peer.send, data)
        assert await protocol.received(len(data)) == data
        await finished(transport, protocol, peer)


# Nothing is left


@pytest.mark.usefixtures("tls_engine")
async def test_sessions_are_freed_with_their_connections(loop):
    async with secured(loop, "server") as (transport, protocol, peer):
        references = [weakref.ref(transport), weakref.ref(transport.get_extra_info("ssl_object"))]
        await asyncio.to_thread(peer.send, b"x" * 100_000)
        await protocol.received(100_000)
        await finished(transport, protocol, peer)
    del transport, protocol, peer
    await asyncio.sleep(0)
    gc.collect()
    assert [reference() for reference in references] == [None, None]
