"""The other end of a TLS connection, and the certificates for both.

A `TlsPeer` is OpenSSL between two memory buffers and a plain blocking socket. Encrypting and sending are two
steps, so a test can deliver any prefix of any record, in any pieces, and end the connection in any way. Its
methods block: a test calls them in a thread (`asyncio.to_thread`).
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import select
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from typing import Any

import trustme
from peers import LIMIT, connected_pair
from recorder import BufferedRecorder, Recorder

NAME = "localhost"
OTHER_NAME = "other.example"
CLIENT_NAME = "client.example"
SIDES = ("client", "server")


@functools.cache
def authority() -> trustme.CA:
    """Return the authority that signs every certificate of this process; its keys are elliptic curves."""
    return trustme.CA()


@functools.cache
def certificate(name: str) -> trustme.LeafCert:
    """Return the certificate of `name`."""
    return authority().issue_cert(name)


def server_context(name: str = NAME, version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    """Return the context of a server called `name` that speaks one version of TLS, or all."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate(name).configure_cert(context)
    return only(context, version)


def client_context(version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    """Return the context of a client that trusts our authority and verifies names."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority().configure_trust(context)
    return only(context, version)


def only(context: ssl.SSLContext, version: ssl.TLSVersion | None) -> ssl.SSLContext:
    """Restrict a context to one version of TLS."""
    if version is not None:
        context.minimum_version = context.maximum_version = version
    return context


def demand_client_certificate(context: ssl.SSLContext, mode: ssl.VerifyMode = ssl.CERT_REQUIRED) -> None:
    """Let a server's context ask its clients for a certificate of our authority."""
    authority().configure_trust(context)
    context.verify_mode = mode


def show_client_certificate(context: ssl.SSLContext) -> None:
    """Let a client's context answer such a server."""
    certificate(CLIENT_NAME).configure_cert(context)


def contexts(version: ssl.TLSVersion | None = None) -> dict[str, ssl.SSLContext]:
    """Return a context for each side."""
    return {"client": client_context(version), "server": server_context(version=version)}


class ViewRecorder(BufferedRecorder):
    """Gives a view of its buffer: asyncio reads what follows the first record into a copy of a bytearray."""

    def get_buffer(self, sizehint: int) -> memoryview:
        return memoryview(super().get_buffer(sizehint))


class Truncated(EOFError):
    """The connection ended without close_notify."""


class TlsPeer:
    """One blocking end of a TLS connection."""

    def __init__(
        self,
        sock: socket.socket,
        context: ssl.SSLContext,
        *,
        server_side: bool,
        server_hostname: str | None = NAME,
        session: ssl.SSLSession | None = None,
    ) -> None:
        self.sock = sock
        self.incoming = ssl.MemoryBIO()
        self.outgoing = ssl.MemoryBIO()
        self.tls = context.wrap_bio(
            self.incoming,
            self.outgoing,
            server_side=server_side,
            server_hostname=None if server_side else server_hostname,
            session=session,
        )

    def handshake(self) -> None:
        """Complete the handshake."""
        self._do(self.tls.do_handshake)

    def encrypt(self, data: bytes) -> bytes:
        """Return the records that carry `data`, without sending them."""
        self.tls.write(data)
        return self.outgoing.read()

    def send(self, data: bytes) -> None:
        """Send all of `data`."""
        view = memoryview(data)
        while view:
            view = view[self.tls.write(view) :]
            self.flush()

    def flush(self) -> None:
        """Send what OpenSSL has ready."""
        if self.outgoing.pending:
            self.sock.sendall(self.outgoing.read())

    def receive_some(self) -> bytes:
        """Return what arrives next; nothing after the other end's close_notify."""
        try:
            return self._do(lambda: self.tls.read(1 << 18))
        except ssl.SSLZeroReturnError:
            return b""

    def receive(self, count: int) -> bytes:
        """Receive exactly `count` bytes."""
        received = bytearray()
        while len(received) < count:
            part = self._do(functools.partial(self.tls.read, count - len(received)))
            if not part:
                raise EOFError(f"{count - len(received)} bytes are missing")
            received += part
        return bytes(received)

    def receive_all(self) -> bytes:
        """Receive until the other end says that it has sent everything."""
        parts = []
        while part := self.receive_some():
            parts.append(part)
        return b"".join(parts)

    def close_notify(self) -> None:
        """Say that nothing more will be sent, without waiting for the other end to say so."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.unwrap()
        self.flush()

    def shut(self) -> None:
        """Say so, wait for the other end to say so, and close the socket."""
        self._do(self.tls.unwrap)
        self.sock.close()

    def exchange(self, data: bytes, count: int) -> bytes:
        """Send `data` and receive `count` bytes at once, so that neither end can block the other."""
        received = bytearray()
        view = memoryview(data)
        records = memoryview(b"")
        self.sock.setblocking(False)
        while view or records or len(received) < count:
            if not records and view:
                view = view[self.tls.write(view[: 1 << 16]) :]
                records = memoryview(self.outgoing.read())
            readable, writable, _ = select.select([self.sock], [self.sock] if records else [], [], LIMIT)
            if not readable and not writable:
                raise TimeoutError("the other end neither reads nor writes")
            if writable:
                records = records[self.sock.send(records) :]
            if readable:
                self._fill()
                with contextlib.suppress(ssl.SSLWantReadError):
                    while len(received) < count:
                        received += self.tls.read(1 << 18)
        self.sock.settimeout(LIMIT)
        return bytes(received)

    def _do(self, step: Callable[[], Any]) -> Any:
        while True:
            try:
                return step()
            except ssl.SSLWantReadError:
                self.flush()
                self._fill()
            finally:
                with contextlib.suppress(OSError):  # the error of `step` says more
                    self.flush()

    def _fill(self) -> None:
        if part := self.sock.recv(1 << 16):
            self.incoming.write(part)
        else:
            raise Truncated


def open_transport(
    loop: asyncio.AbstractEventLoop,
    side: str,
    factory: Callable[[], asyncio.BaseProtocol],
    sock: socket.socket,
    context: ssl.SSLContext | None = None,
    **options: Any,
) -> Any:
    """Return the coroutine that makes the `side` under test of the connection that `sock` is."""
    context = context or contexts()[side]
    if side == "server":
        options.pop("server_hostname", None)
        return loop.connect_accepted_socket(factory, sock, ssl=context, **options)
    options.setdefault("server_hostname", NAME)
    return loop.create_connection(factory, sock=sock, ssl=context, **options)


def opposite(
    side: str, sock: socket.socket, context: ssl.SSLContext | None = None, **options: Any
) -> TlsPeer:
    """Return the peer of the `side` under test."""
    other = "server" if side == "client" else "client"
    return TlsPeer(sock, context or contexts()[other], server_side=other == "server", **options)


@contextlib.asynccontextmanager
async def secured(
    loop: asyncio.AbstractEventLoop,
    side: str,
    protocol: Any = None,
    *,
    context: ssl.SSLContext | None = None,
    peer_context: ssl.SSLContext | None = None,
    **options: Any,
) -> AsyncIterator[tuple[Any, Any, TlsPeer]]:
    """A connection after its handshake: (transport, protocol, peer), closed afterwards."""
    protocol = protocol or Recorder(loop)
    with connected_pair() as (ours, theirs):
        peer = opposite(side, theirs, peer_context)
        (transport, _), _ = await asyncio.gather(
            open_transport(loop, side, lambda: protocol, ours, context, **options),
            asyncio.to_thread(peer.handshake),
        )
        yield transport, protocol, peer
        if not protocol.lost.done():
            transport.abort()
            await protocol.lost


async def finished(transport: Any, protocol: Any, peer: TlsPeer) -> None:
    """Close a connection properly, from this side, and see that both ends are content."""
    transport.close()
    await asyncio.to_thread(peer.shut)
    assert await protocol.lost is None


def write_until_paused(transport: Any, protocol: Any, chunk: bytes = bytes(1 << 17)) -> int:
    """Write until the protocol is told to pause; return how much."""
    written = 0
    while not protocol.paused.is_set():
        transport.write(chunk)
        written += len(chunk)
        assert written < 1 << 30, "nothing ever pauses the protocol"
    return written
