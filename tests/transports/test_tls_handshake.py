"""What the two ends agree on before anything flows, and how they fail to: names, certificates, time."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import ssl
import sys
import weakref

import pytest
from peers import connected_pair, listening, receive_all, reset
from recorder import Recorder, forget_failed_handshakes
from tls_peers import (
    CLIENT_NAME,
    NAME,
    OTHER_NAME,
    TlsPeer,
    client_context,
    contexts,
    demand_client_certificate,
    finished,
    open_transport,
    opposite,
    secured,
    server_context,
    show_client_certificate,
)

pytestmark = pytest.mark.usefixtures("tls_engine")

V12, V13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
BROKEN = (ssl.SSLError, EOFError, ConnectionError)


@pytest.fixture
def failed_handshakes(loop, reported):
    """The test has handshakes that a server cannot complete."""
    yield
    forget_failed_handshakes(loop, reported)


async def refused(loop, side, *, context=None, peer_context=None, peer_fails=True, **options):
    """Return the error of a connection that must fail, and see that it leaves nothing behind."""
    protocol = Recorder(loop)
    with connected_pair() as (ours, theirs):
        peer = opposite(side, theirs, peer_context)
        outcome, of_peer = await asyncio.gather(
            open_transport(loop, side, lambda: protocol, ours, context, **options),
            asyncio.to_thread(peer.handshake),
            return_exceptions=True,
        )
        assert isinstance(outcome, BaseException)
        assert peer_fails is (of_peer is not None)
        # Nothing of the connection is left: the peer sees its end.
        with contextlib.suppress(ConnectionResetError):
            await asyncio.to_thread(receive_all, theirs)
        assert protocol.calls == []
        assert ours.fileno() == -1
    return outcome


async def test_a_wrong_name_is_a_certificate_error(loop):
    error = await refused(
        loop,
        "client",
        peer_context=server_context(version=V12),
        server_hostname=OTHER_NAME,
    )
    assert isinstance(error, ssl.CertificateError)
    assert error.verify_code == 62
    assert OTHER_NAME in str(error)


async def not_begun(loop, context=None, **options):
    """Have a client make a handshake that cannot begin, and see that it leaves nothing behind."""
    expected = (TypeError, ValueError, ssl.SSLError)
    if sys.version_info >= (3, 14):
        error = await refused(loop, "client", context=context, **options)
        assert isinstance(error, expected)
        return
    # Up to Python 3.13 the socket stays with who brought it.
    with connected_pair() as (ours, _):
        with pytest.raises(expected):
            await open_transport(loop, "client", lambda: Recorder(loop), ours, context, **options)
        assert ours.fileno() != -1


@pytest.mark.parametrize("name", [".example.com", "a\0b", "x" * 300])
async def test_a_name_that_no_handshake_can_begin_with_leaves_nothing(loop, name):
    await not_begun(loop, server_hostname=name)


async def test_a_context_of_the_other_side_leaves_nothing(loop):
    await not_begun(loop, ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), server_hostname=NAME)


@pytest.mark.skipif(sys.version_info < (3, 14), reason="before, the socket goes with the exception")
async def test_a_connection_of_the_loops_own_is_closed_where_its_handshake_cannot_begin(loop):
    with socket.create_server(("127.0.0.1", 0)) as server:
        options = {"ssl": client_context(), "server_hostname": ".example.com"}
        with pytest.raises((ValueError, ssl.SSLError)):
            await loop.create_connection(lambda: Recorder(loop), *server.getsockname(), **options)
        theirs, _ = server.accept()
        with theirs, contextlib.suppress(ConnectionResetError):
            theirs.settimeout(10)
            await asyncio.to_thread(receive_all, theirs)


async def test_an_unknown_authority_is_a_certificate_error(loop):
    error = await refused(
        loop,
        "client",
        context=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
        peer_context=server_context(version=V12),
    )
    assert isinstance(error, ssl.SSLCertVerificationError)
    assert "unable to get local issuer certificate" in str(error)


async def test_the_default_context_verifies(loop):
    error = await refused(loop, "client", context=True, peer_context=server_context(version=V12))
    assert isinstance(error, ssl.SSLCertVerificationError)


async def test_the_default_context_accepts_whom_the_environment_trusts(loop, monkeypatch, tmp_path):
    from tls_peers import authority

    path = tmp_path / "authority.pem"
    authority().cert_pem.write_to_path(str(path))
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    async with secured(loop, "client", context=True) as (transport, protocol, peer):
        assert isinstance(transport.get_extra_info("sslcontext"), ssl.SSLContext)
        await finished(transport, protocol, peer)


@pytest.mark.parametrize(
    "check_hostname",
    [
        pytest.param(True, marks=pytest.mark.skipif(sys.version_info >= (3, 14), reason="ssl refuses it")),
        False,
    ],
)
async def test_an_empty_name_verifies_no_name(loop, check_hostname):
    context = client_context()
    context.check_hostname = check_hostname
    async with secured(loop, "client", context=context, server_hostname="") as (transport, protocol, peer):
        assert not transport.get_extra_info("ssl_object").server_hostname
        assert transport.get_extra_info("peercert")
        await finished(transport, protocol, peer)


async def test_no_name_is_known_for_a_socket(loop):
    with connected_pair() as (ours, _), pytest.raises(ValueError, match="server_hostname"):
        await loop.create_connection(lambda: Recorder(loop), sock=ours, ssl=client_context())


async def test_no_name_is_known_for_a_unix_socket(loop):
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(ValueError, match="server_hostname"):
        await loop.create_unix_connection(lambda: Recorder(loop), sock=ours, ssl=client_context())


async def test_a_name_without_tls_is_refused(loop):
    with connected_pair() as (ours, _), pytest.raises(ValueError, match="server_hostname"):
        await loop.create_connection(lambda: Recorder(loop), sock=ours, server_hostname=NAME)


@pytest.mark.parametrize("option", ["ssl_handshake_timeout", "ssl_shutdown_timeout"])
async def test_timeouts_without_tls_are_refused(loop, option):
    with connected_pair() as (ours, _):
        with pytest.raises(ValueError, match=f"{option} is only meaningful with ssl"):
            await loop.create_connection(lambda: Recorder(loop), sock=ours, **{option: 1})
        with pytest.raises(ValueError, match=f"{option} is only meaningful with ssl"):
            await loop.connect_accepted_socket(lambda: Recorder(loop), ours, **{option: 1})


@pytest.mark.parametrize("option", ["ssl_handshake_timeout", "ssl_shutdown_timeout"])
@pytest.mark.parametrize("value", [0, -1, -0.5])
async def test_timeouts_must_be_positive(loop, side, option, value):
    with connected_pair() as (ours, _), pytest.raises(ValueError, match=f"{option} should be a positive"):
        await open_transport(loop, side, lambda: Recorder(loop), ours, **{option: value})


@pytest.mark.parametrize("wrong", [True, False], ids=repr)
async def test_a_server_needs_a_context(loop, wrong):
    with pytest.raises(TypeError, match="ssl argument must be an SSLContext or None"):
        await loop.create_server(asyncio.Protocol, "127.0.0.1", 0, ssl=wrong)


async def test_a_silent_peer_runs_into_the_timeout(loop, side):
    with connected_pair() as (ours, theirs):
        begin = loop.time()
        with pytest.raises(ConnectionAbortedError) as caught:
            await open_transport(
                loop, side, lambda: Recorder(loop), ours, contexts()[side], ssl_handshake_timeout=0.05
            )
        assert str(caught.value) == (
            "SSL handshake is taking longer than 0.05 seconds: aborting the connection"
        )
        assert loop.time() - begin >= 0.04
        with contextlib.suppress(ConnectionResetError):
            await asyncio.to_thread(receive_all, theirs)


async def test_a_server_lets_silent_clients_go(loop, failed_handshakes):
    made = []

    class Unmade(asyncio.Protocol):
        def connection_made(self, transport):
            made.append(transport)

    server = await loop.create_server(
        Unmade, "127.0.0.1", 0, ssl=server_context(), ssl_handshake_timeout=0.05
    )
    with socket.create_connection(server.sockets[0].getsockname()) as client:
        client.settimeout(20)
        with contextlib.suppress(ConnectionResetError):
            assert await asyncio.to_thread(receive_all, client) == b""
    assert made == []
    server.close()
    await server.wait_closed()


@pytest.mark.parametrize("how", ["end", "reset"])
async def test_a_peer_that_leaves_during_the_handshake_is_a_connection_error(loop, side, how):
    with connected_pair() as (ours, theirs):
        opening = asyncio.ensure_future(open_transport(loop, side, lambda: Recorder(loop), ours))
        await asyncio.sleep(0.01)
        if how == "end":
            theirs.close()
        else:
            reset(theirs)
        with pytest.raises(ConnectionResetError):
            await opening


async def test_no_common_version_fails_on_both_ends(loop, side):
    pair = {"client": client_context(V12), "server": server_context(version=V13)}
    other = "server" if side == "client" else "client"
    error = await refused(loop, side, context=pair[side], peer_context=pair[other])
    assert isinstance(error, BROKEN)


async def test_a_failed_handshake_of_a_server_is_nobodys_concern(loop, failed_handshakes):
    """Errors of the network are not reported; the server goes on."""
    served = []

    def accept():
        served.append(Recorder(loop))
        return served[-1]

    server = await loop.create_server(accept, "127.0.0.1", 0, ssl=server_context())
    address = server.sockets[0].getsockname()

    def spoil():
        for garbage in (b"GET / HTTP/1.0\r\n\r\n", b"\x16\x03\x01\x00\x05hello", bytes(300), b"\x16"):
            with socket.create_connection(address) as client:
                client.settimeout(20)
                client.sendall(garbage)
                client.shutdown(socket.SHUT_WR)
                with contextlib.suppress(ConnectionResetError):
                    receive_all(client)

    await asyncio.to_thread(spoil)
    assert all(protocol.calls == [] for protocol in served)
    transport, client = await loop.create_connection(
        lambda: Recorder(loop), *address, ssl=client_context(), server_hostname=NAME
    )
    transport.close()
    await client.lost
    await served[-1].lost
    server.close()
    await server.wait_closed()


async def test_a_tls_client_of_a_plain_server_fails(loop):
    with connected_pair() as (ours, theirs):
        theirs.sendall(b"220 welcome to a server that speaks first\r\n")
        with pytest.raises(ssl.SSLError, match=r"(?i)wrong.version.number|record"):
            await open_transport(loop, "client", lambda: Recorder(loop), ours)


async def test_alpn_is_negotiated(loop, side):
    pair = contexts()
    pair["client"].set_alpn_protocols(["h2", "http/1.1"])
    pair["server"].set_alpn_protocols(["http/1.1", "spdy"])
    other = "server" if side == "client" else "client"
    async with secured(loop, side, context=pair[side], peer_context=pair[other]) as (
        transport,
        protocol,
        peer,
    ):
        assert transport.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
        assert peer.tls.selected_alpn_protocol() == "http/1.1"
        await finished(transport, protocol, peer)


async def test_the_sni_callback_may_switch_contexts(loop):
    names = []
    other = server_context(OTHER_NAME)
    context = server_context()

    def choose(tls, name, original):
        assert original is context
        names.append(name)
        if name == OTHER_NAME:
            tls.context = other

    context.sni_callback = choose
    for name in (NAME, OTHER_NAME):
        with connected_pair() as (ours, theirs):
            peer = TlsPeer(theirs, client_context(), server_side=False, server_hostname=name)
            protocol = Recorder(loop)
            (transport, _), _ = await asyncio.gather(
                loop.connect_accepted_socket(lambda: protocol, ours, ssl=context),  # noqa: B023
                asyncio.to_thread(peer.handshake),
            )
            assert peer.tls.getpeercert()["subjectAltName"] == (("DNS", name),)
            assert transport.get_extra_info("ssl_object").context is (
                other if name == OTHER_NAME else context
            )
            assert transport.get_extra_info("sslcontext") is context
            await finished(transport, protocol, peer)
    assert names == [NAME, OTHER_NAME]


async def test_an_sni_callback_may_refuse(loop):
    context = server_context()
    context.sni_callback = lambda tls, name, original: ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
    error = await refused(loop, "server", context=context)
    assert isinstance(error, ssl.SSLError)


@pytest.mark.parametrize("version", [V12, V13])
async def test_a_client_certificate_is_verified_and_told(loop, side, version):
    pair = contexts(version)
    demand_client_certificate(pair["server"])
    show_client_certificate(pair["client"])
    other = "server" if side == "client" else "client"
    async with secured(loop, side, context=pair[side], peer_context=pair[other]) as (
        transport,
        protocol,
        peer,
    ):
        await asyncio.to_thread(peer.send, b"hello")
        assert await protocol.received(5) == b"hello"
        server = transport.get_extra_info("ssl_object") if side == "server" else peer.tls
        assert server.getpeercert()["subjectAltName"] == (("DNS", CLIENT_NAME),)
        if side == "server":
            assert transport.get_extra_info("peercert") == server.getpeercert()
        await finished(transport, protocol, peer)


async def test_an_optional_client_certificate_may_be_missing(loop):
    context = server_context()
    demand_client_certificate(context, ssl.CERT_OPTIONAL)
    async with secured(loop, "server", context=context) as (transport, protocol, peer):
        assert transport.get_extra_info("peercert") is None
        await finished(transport, protocol, peer)


@pytest.mark.parametrize("version", [V12, V13])
async def test_a_required_client_certificate_that_is_missing_fails_the_server(loop, version):
    pair = contexts(version)
    demand_client_certificate(pair["server"])
    error = await refused(
        loop,
        "server",
        context=pair["server"],
        peer_context=pair["client"],
        # A client of TLS 1.3 has finished before the server has seen that there is no certificate.
        peer_fails=version is V12,
    )
    assert isinstance(error, ssl.SSLError)
    assert "peer did not return a certificate" in str(error)


async def test_a_client_without_the_certificate_learns_it_from_a_server_of_1_2(loop):
    pair = contexts(V12)
    demand_client_certificate(pair["server"])
    error = await refused(loop, "client", context=pair["client"], peer_context=pair["server"])
    assert isinstance(error, BROKEN)


async def test_a_client_without_the_certificate_learns_it_from_a_server_of_1_3_after_the_handshake(loop):
    pair = contexts(V13)
    demand_client_certificate(pair["server"])
    protocol = Recorder(loop)
    with connected_pair() as (ours, theirs):
        peer = opposite("client", theirs, pair["server"])
        (transport, _), failed = await asyncio.gather(
            open_transport(loop, "client", lambda: protocol, ours, pair["client"]),
            asyncio.to_thread(peer.handshake),
            return_exceptions=True,
        )
        assert isinstance(failed, ssl.SSLError)
        error = await protocol.lost
        assert isinstance(error, ssl.SSLError)
        assert "alert" in str(error).lower()
        assert transport.is_closing()
        assert protocol.calls[0] == "connection_made"
        assert protocol.calls[-1] == "connection_lost"


@pytest.mark.parametrize("version", [V12, V13])
async def test_a_session_is_resumed_by_a_server(loop, version):
    pair = contexts(version)
    reused = []
    session = None
    for _ in range(3):
        with connected_pair() as (ours, theirs):
            peer = opposite("server", theirs, pair["client"], session=session)
            (transport, protocol), _ = await asyncio.gather(
                open_transport(loop, "server", lambda: Recorder(loop), ours, pair["server"]),
                asyncio.to_thread(peer.handshake),
            )
            transport.write(b"x")  # with TLS 1.3 the ticket comes after the handshake
            await asyncio.to_thread(peer.receive, 1)
            session = peer.tls.session
            reused.append((peer.tls.session_reused, transport.get_extra_info("ssl_object").session_reused))
            await finished(transport, protocol, peer)
    assert reused == [(False, False), (True, True), (True, True)]


@pytest.mark.parametrize("version", [V12, V13])
async def test_a_client_knows_its_session(loop, version):
    pair = contexts(version)
    async with secured(loop, "client", context=pair["client"], peer_context=pair["server"]) as (
        transport,
        protocol,
        peer,
    ):
        await asyncio.to_thread(peer.send, b"x")
        await protocol.received(1)
        tls = transport.get_extra_info("ssl_object")
        assert tls.session_reused is False
        assert tls.session.has_ticket
        await finished(transport, protocol, peer)


async def test_a_close_during_the_handshake_of_others_leaves_them_alone(loop, failed_handshakes):
    """Half of the clients leave while all shake hands."""
    served = []

    def accept():
        served.append(Recorder(loop))
        return served[-1]

    server = await loop.create_server(accept, "127.0.0.1", 0, ssl=server_context())
    address = server.sockets[0].getsockname()
    context = client_context()

    async def connect(number):
        opening = asyncio.ensure_future(
            loop.create_connection(lambda: Recorder(loop), *address, ssl=context, server_hostname=NAME)
        )
        if number % 2:
            for _ in range(number % 7):
                await asyncio.sleep(0)
            opening.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                transport, protocol = await opening
                transport.abort()
                await protocol.lost
        else:
            transport, protocol = await opening
            transport.write(b"hello")
            transport.close()
            await protocol.lost

    await asyncio.gather(*(connect(number) for number in range(60)))
    server.close()
    await server.wait_closed()
    for protocol in served:
        if "connection_made" in protocol.calls:
            await protocol.lost
    assert sum(protocol.data == b"hello" for protocol in served) >= 30


@pytest.mark.parametrize("turns", range(8))
async def test_a_cancelled_connection_closes_its_socket(loop, side, turns):
    with connected_pair() as (ours, theirs):
        opening = asyncio.ensure_future(open_transport(loop, side, lambda: Recorder(loop), ours))
        for _ in range(turns):
            await asyncio.sleep(0)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        if turns:  # before its first turn a coroutine has done nothing
            with contextlib.suppress(ConnectionResetError):
                await asyncio.to_thread(receive_all, theirs)
            assert ours.fileno() == -1


async def test_a_failed_connection_leaves_no_object(loop, side):
    context = contexts()[side]
    references = []

    class Witness(Recorder):
        pass

    def make():
        protocol = Witness(loop)
        references.append(weakref.ref(protocol))
        return protocol

    for _ in range(3):
        with connected_pair() as (ours, theirs):
            theirs.sendall(b"this is no TLS at all, and long enough to be read as a record header")
            with pytest.raises(ssl.SSLError):
                await open_transport(loop, side, make, ours, context)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    gc.collect()
    assert [reference() for reference in references] == [None] * 3
    context_reference = weakref.ref(context)
    del context
    gc.collect()
    assert context_reference() is None


async def test_a_handshake_does_not_hold_the_others_up(loop):
    """A peer in the middle of its handshake costs the others nothing."""
    with listening() as listener, connected_pair() as (ours, theirs):
        waiting = asyncio.ensure_future(open_transport(loop, "client", lambda: Recorder(loop), ours))
        for _ in range(20):
            transport, protocol = await loop.create_connection(
                lambda: Recorder(loop), *listener.getsockname()
            )
            accepted, _ = listener.accept()
            accepted.close()
            await protocol.lost
            transport.close()
        assert not waiting.done()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert theirs.recv(5)[:1] == b"\x16"


@pytest.mark.parametrize("pieces", [1, 3, 100])
async def test_a_handshake_may_arrive_in_pieces(loop, side, pieces):
    with connected_pair() as (ours, theirs):
        peer = opposite(side, theirs)

        def send_in_pieces():
            data = peer.outgoing.read()
            for start in range(0, len(data), pieces):
                theirs.sendall(data[start : start + pieces])

        theirs.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        peer.flush = send_in_pieces
        (transport, protocol), _ = await asyncio.gather(
            open_transport(loop, side, lambda: Recorder(loop), ours), asyncio.to_thread(peer.handshake)
        )
        await asyncio.to_thread(peer.send, b"done")
        assert await protocol.received(4) == b"done"
        await finished(transport, protocol, peer)
