"""Datagram endpoints: how they are opened, what arrives, what leaves and how they end."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import ctypes
import gc
import os
import socket
import sys
import warnings
from typing import Any, NamedTuple
from unittest import mock

import peers
import pytest

LOCALHOST = "127.0.0.1"
IP_RECVTTL = 12  # ip(7); the socket module has no name for it
SENDS_EMPTY_DATAGRAMS = sys.version_info >= (3, 13)


class Recorder(asyncio.DatagramProtocol):
    """Records what a transport tells it; `lost`, `datagrams(count)` and `failures(count)` can be awaited."""

    def __init__(self) -> None:
        self.transport: Any = None
        self.received: list[tuple[bytes, Any]] = []
        self.errors: list[Exception] = []
        self.calls: list[str] = []
        self.lost: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()
        self._progress = asyncio.Event()

    def connection_made(self, transport: Any) -> None:
        self.calls.append("connection_made")
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.received.append((data, addr))
        self._progress.set()

    def error_received(self, exc: Exception) -> None:
        self.errors.append(exc)
        self._progress.set()

    def pause_writing(self) -> None:
        self.calls.append("pause_writing")
        self._progress.set()

    def resume_writing(self) -> None:
        self.calls.append("resume_writing")
        self._progress.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.calls.append("connection_lost")
        self.lost.set_result(exc)

    async def until(self, condition: Any) -> None:
        while not condition():
            self._progress.clear()
            await self._progress.wait()

    async def datagrams(self, count: int) -> list[bytes]:
        """Wait until so many datagrams have arrived and return what was in all that did."""
        await self.until(lambda: len(self.received) >= count)
        return [data for data, _ in self.received]

    async def failures(self, count: int) -> list[Exception]:
        """Wait until so many errors were told and return all that were."""
        await self.until(lambda: len(self.errors) >= count)
        return self.errors


@contextlib.asynccontextmanager
async def endpoint(protocol: Any = Recorder, **options: Any) -> Any:
    """An endpoint's protocol; the endpoint is closed at the end and must say so once."""
    if not options:
        options = {"local_addr": (LOCALHOST, 0)}
    transport, protocol = await asyncio.get_running_loop().create_datagram_endpoint(protocol, **options)
    try:
        yield protocol
    finally:
        transport.close()
        await protocol.lost
        assert protocol.calls.count("connection_lost") == 1


@contextlib.contextmanager
def peer(family: int = socket.AF_INET, host: str = LOCALHOST) -> Any:
    """A blocking UDP socket."""
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.bind((host, 0))
        sock.settimeout(peers.LIMIT)
        yield sock


@contextlib.contextmanager
def unix_peer(path: Any) -> Any:
    """A blocking Unix datagram socket with a name."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(path)
        sock.settimeout(peers.LIMIT)
        yield sock


def name_of(protocol: Recorder) -> Any:
    return protocol.transport.get_extra_info("sockname")


def fill(transport: Any, data: bytes) -> int:
    """Send until something waits to be sent; return how many datagrams were taken in all."""
    for count in range(1, 100_000):
        transport.sendto(data)
        if transport.get_write_buffer_size():
            return count
    raise AssertionError("it never blocks")


def receive_all(sock: socket.socket) -> int:
    """Receive what is there; return how many datagrams that was."""
    count = 0
    sock.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            sock.recv(1)
            count += 1
    sock.settimeout(peers.LIMIT)
    return count


# Opening.


async def test_an_endpoint_with_a_local_address(loop):
    with peer() as other:
        async with endpoint(local_addr=(LOCALHOST, 0)) as local:
            assert name_of(local)[0] == LOCALHOST
            assert local.transport.get_extra_info("peername") is None
            other.sendto(b"question", name_of(local))
            assert await local.datagrams(1) == [b"question"]
            assert local.received[0][1] == other.getsockname()
            local.transport.sendto(b"answer", local.received[0][1])
            assert other.recvfrom(100) == (b"answer", name_of(local))


async def test_a_mock_in_place_of_asyncios_get_extra_info_is_asked_of_endpoints(loop):
    async with endpoint(local_addr=(LOCALHOST, 0)) as local:
        if not isinstance(local.transport, asyncio.DatagramTransport):
            pytest.skip("this Python's own endpoints are no asyncio.DatagramTransport")
        with mock.patch("asyncio.DatagramTransport.get_extra_info", return_value="mocked") as asked:
            assert local.transport.get_extra_info("sockname") == "mocked"
            asked.assert_called_once_with("sockname")
        assert local.transport.get_extra_info("sockname")[0] == LOCALHOST


async def test_an_endpoint_with_a_remote_address(loop):
    with peer() as other:
        async with endpoint(remote_addr=other.getsockname()) as local:
            assert local.transport.get_extra_info("peername") == other.getsockname()
            local.transport.sendto(b"question")
            data, address = other.recvfrom(100)
            assert (data, address) == (b"question", name_of(local))
            other.sendto(b"answer", address)
            assert await local.datagrams(1) == [b"answer"]
            assert local.received[0][1] == other.getsockname()


async def test_an_endpoint_with_both_addresses(loop):
    with peer() as other:
        async with endpoint(local_addr=(LOCALHOST, 0), remote_addr=other.getsockname()) as local:
            local.transport.sendto(b"x")
            assert other.recvfrom(100) == (b"x", name_of(local))


async def test_a_connected_endpoint_hears_its_peer_only(loop):
    with peer() as other, peer() as stranger:
        async with endpoint(remote_addr=other.getsockname()) as local:
            stranger.sendto(b"from a stranger", name_of(local))
            other.sendto(b"from the peer", name_of(local))
            assert await local.datagrams(1) == [b"from the peer"]


async def test_an_endpoint_with_a_family_only(loop):
    with peer() as other:
        async with endpoint(family=socket.AF_INET) as local:
            local.transport.sendto(b"x", other.getsockname())
            data, address = other.recvfrom(100)
            other.sendto(data + b"y", address)
            assert await local.datagrams(1) == [b"xy"]


async def test_an_endpoint_of_a_socket(loop):
    with peer() as other:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind((LOCALHOST, 0))
        async with endpoint(sock=sock) as local:
            assert not sock.getblocking()
            assert local.transport.get_extra_info("socket").fileno() == sock.fileno()
            local.transport.sendto(b"x", other.getsockname())
            assert other.recvfrom(100) == (b"x", sock.getsockname())
        assert sock.fileno() == -1


async def test_an_endpoint_of_a_connected_socket_sends_to_its_peer_whatever_the_address(loop):
    with peer() as other:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.connect(other.getsockname())
        async with endpoint(sock=sock) as local:
            local.transport.sendto(b"1")
            local.transport.sendto(b"2", (LOCALHOST, 9))
            assert [other.recv(100), other.recv(100)] == [b"1", b"2"]


async def test_ipv6(loop):
    with peer(socket.AF_INET6, "::1") as other:
        async with endpoint(local_addr=("::1", 0)) as local:
            assert len(name_of(local)) == 4
            for address in (other.getsockname(), other.getsockname()[:2], (*other.getsockname()[:3],)):
                local.transport.sendto(b"x", address)
            await asyncio.sleep(0)
            for _ in range(3):
                assert other.recvfrom(100) == (b"x", name_of(local))
            other.sendto(b"y", name_of(local))
            assert await local.datagrams(1) == [b"y"]
            assert local.received == [(b"y", other.getsockname())]


async def test_an_ipv6_endpoint_refuses_an_ipv4_address_as_python_does(loop):
    async with endpoint(local_addr=("::1", 0)) as local:
        local.transport.sendto(b"x", (LOCALHOST, 9))
        (error,) = await local.failures(1)
        assert isinstance(error, socket.gaierror)


async def test_an_ipv4_mapped_peer_of_an_ipv6_endpoint(loop):
    sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    sock.bind(("::", 0))
    with peer() as other:
        async with endpoint(sock=sock) as local:
            other.sendto(b"x", (LOCALHOST, name_of(local)[1]))
            await local.datagrams(1)
            assert local.received[0][1] == ("::ffff:127.0.0.1", other.getsockname()[1], 0, 0)
            local.transport.sendto(b"y", local.received[0][1])
            assert other.recv(100) == b"y"


async def test_unix_sockets_with_paths(loop, tmp_path):
    ours, theirs = str(tmp_path / "ours"), str(tmp_path / "theirs")
    with unix_peer(theirs) as other:
        async with endpoint(family=socket.AF_UNIX, local_addr=ours) as local:
            local.transport.sendto(b"1", theirs)
            local.transport.sendto(b"2", theirs.encode())
            await asyncio.sleep(0)
            assert [other.recvfrom(100), other.recvfrom(100)] == [(b"1", ours), (b"2", ours)]
            other.sendto(b"3", ours)
            await local.datagrams(1)
            assert local.received == [(b"3", theirs)]


async def test_a_unix_endpoint_with_a_remote_path(loop, tmp_path):
    ours, theirs = str(tmp_path / "ours"), str(tmp_path / "theirs")
    with unix_peer(theirs) as other:
        async with endpoint(family=socket.AF_UNIX, local_addr=ours, remote_addr=theirs) as local:
            assert local.transport.get_extra_info("peername") == theirs
            local.transport.sendto(b"1")
            assert other.recv(100) == b"1"


async def test_abstract_unix_names(loop):
    name = b"\0aioxide test %d" % id(loop)
    with unix_peer(name) as other, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(name + b" ours")
        async with endpoint(sock=sock) as local:
            local.transport.sendto(b"1", name)
            assert other.recvfrom(100) == (b"1", name + b" ours")
            other.sendto(b"2", name + b" ours")
            await local.datagrams(1)
            assert local.received == [(b"2", name)]


async def test_a_unix_sender_without_a_name(loop, tmp_path):
    ours = str(tmp_path / "ours")
    async with endpoint(family=socket.AF_UNIX, local_addr=ours) as local:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
            other.sendto(b"x", ours)
            await local.datagrams(1)
            assert local.received == [(b"x", None)]


async def test_the_longest_path_of_a_unix_socket(loop, tmp_path, monkeypatch):
    """It has no NUL at its end. Python's own sockets do not bind to it, but hear of it."""
    monkeypatch.chdir(tmp_path)
    theirs = "t" * 108
    address = socket.AF_UNIX.to_bytes(2, sys.byteorder) + theirs.encode()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        assert ctypes.CDLL(None).bind(other.fileno(), address, len(address)) == 0
        async with endpoint(family=socket.AF_UNIX, local_addr="ours") as local:
            other.sendto(b"x", "ours")
            await local.datagrams(1)
            assert local.received == [(b"x", theirs)]
            local.transport.sendto(b"y", theirs)
            assert "too long" in str(local.errors[0])


async def test_unix_paths_that_are_not_ascii(loop, tmp_path):
    ours, theirs = str(tmp_path / "ours"), str(tmp_path / "thëirs \udcff")
    with unix_peer(theirs) as other:
        async with endpoint(family=socket.AF_UNIX, local_addr=ours) as local:
            local.transport.sendto(b"1", theirs)
            assert other.recv(100) == b"1"
            other.sendto(b"2", ours)
            await local.datagrams(1)
            assert local.received == [(b"2", theirs)]


async def test_a_socket_pair(loop, is_aioxide):
    if not is_aioxide:
        pytest.skip("asyncio takes an unnamed peer for none, and closes the transport when something is sent")
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    theirs.settimeout(peers.LIMIT)
    with theirs:
        async with endpoint(sock=ours) as local:
            local.transport.sendto(b"1")
            assert theirs.recv(100) == b"1"
            theirs.send(b"2")
            assert await local.datagrams(1) == [b"2"]


async def test_reuse_port(loop):
    async with endpoint(local_addr=(LOCALHOST, 0), reuse_port=True) as first:
        async with endpoint(local_addr=name_of(first), reuse_port=True) as second:
            assert name_of(first) == name_of(second)
        with pytest.raises(OSError, match="already in use"):
            await loop.create_datagram_endpoint(Recorder, local_addr=name_of(first))


async def test_allow_broadcast_does_not_connect(loop):
    with peer() as other, peer() as stranger:
        remote = other.getsockname()
        async with endpoint(remote_addr=remote, allow_broadcast=True, local_addr=(LOCALHOST, 0)) as local:
            sock = local.transport.get_extra_info("socket")
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST)
            assert local.transport.get_extra_info("peername") is None
            local.transport.sendto(b"1")
            local.transport.sendto(b"2", remote)
            await asyncio.sleep(0)
            assert [other.recv(100), other.recv(100)] == [b"1", b"2"]
            stranger.sendto(b"3", name_of(local))
            assert await local.datagrams(1) == [b"3"]
            with pytest.raises(ValueError, match="Invalid address"):
                local.transport.sendto(b"4", stranger.getsockname())


async def test_wrong_arguments(loop):
    with peer() as sock, socket.socket() as stream:
        for options, error in (
            ({"sock": stream}, ValueError),
            ({"sock": sock, "local_addr": (LOCALHOST, 0)}, ValueError),
            ({"sock": sock, "reuse_port": True}, ValueError),
            ({}, ValueError),
            ({"local_addr": LOCALHOST}, TypeError),
            ({"local_addr": ("256.256.256.256", 0)}, socket.gaierror),
            ({"local_addr": (LOCALHOST, 0), "remote_addr": ("::1", 9)}, ValueError),
            ({"local_addr": sock.getsockname()}, OSError),
        ):
            with pytest.raises(error):
                await loop.create_datagram_endpoint(Recorder, **options)


async def test_a_factory_that_fails(loop):
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def factory():
        raise ZeroDivisionError

    with sock, pytest.raises(ZeroDivisionError):
        await loop.create_datagram_endpoint(factory, sock=sock)


@pytest.mark.parametrize("turns", range(8))
async def test_a_cancelled_opening_closes(loop, turns):
    """At each of its suspensions, and when it is done."""
    protocol = Recorder()
    task = asyncio.ensure_future(
        loop.create_datagram_endpoint(
            lambda: protocol, local_addr=(LOCALHOST, 0), remote_addr=("localhost", 9)
        )
    )
    for _ in range(turns):
        await asyncio.sleep(0)
    if task.cancel():
        with pytest.raises(asyncio.CancelledError):
            await task
    else:
        transport, _ = await task
        transport.close()
    if protocol.calls:
        await protocol.lost


async def test_a_forked_child_sends_nothing(loop, is_aioxide):
    if not is_aioxide:
        pytest.skip("asyncio lets it")
    with peer() as other, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of a fork in a process that may have threads
        async with endpoint() as local:
            local.transport.sendto(b"parent 1", other.getsockname())
            local.transport.sendto(b"parent 2", other.getsockname())
            child = os.fork()
            if not child:
                refused = 0
                for call in (
                    lambda: local.transport.sendto(b"child", other.getsockname()),
                    local.transport.get_write_buffer_size,
                    local.transport.close,
                ):
                    try:
                        call()
                    except RuntimeError:
                        refused += 1
                os._exit(refused)
            _, status = os.waitpid(child, 0)
            assert os.waitstatus_to_exitcode(status) == 3
            await asyncio.sleep(0)
            assert [other.recv(100), other.recv(100)] == [b"parent 1", b"parent 2"]
            other.setblocking(False)
            with pytest.raises(BlockingIOError):
                other.recv(100)


# What a transport says of itself.


async def test_a_transport_is_asyncios(loop, is_aioxide):
    async with endpoint() as local:
        transport = local.transport
        if is_aioxide or sys.version_info >= (3, 12):
            assert isinstance(transport, asyncio.DatagramTransport)
        assert isinstance(transport, asyncio.Transport)  # by accident, but CPython's own tests look
        assert transport.get_protocol() is local
        assert transport.get_extra_info("socket").getsockname() == name_of(local)
        assert transport.get_extra_info("nothing") is None
        assert transport.get_extra_info("nothing", 7) == 7
        assert not transport.is_closing()
        assert (
            f"fd={transport.get_extra_info('socket').fileno()} read=polling write=<idle, bufsize=0>"
            in repr(transport)
        )
        transport.close()
        assert transport.is_closing()
        assert "closing" in repr(transport)
    assert "closed" in repr(transport)
    assert transport.get_extra_info("sockname")[0] == LOCALHOST


async def test_the_descriptor_of_a_transport_cannot_be_watched(loop):
    async with endpoint() as local:
        with pytest.raises(RuntimeError, match="is used by transport"):
            loop.add_reader(local.transport.get_extra_info("socket").fileno(), print)


async def test_a_new_protocol_gets_what_comes_after_it(loop):
    second = Recorder()

    class First(Recorder):
        def datagram_received(self, data, addr):
            super().datagram_received(data, addr)
            self.transport.set_protocol(second)

    with peer() as other:
        async with endpoint(First) as local:
            for number in range(5):
                other.sendto(b"%d" % number, name_of(local))
            assert await second.datagrams(4) == [b"1", b"2", b"3", b"4"]
            assert local.received[0][0] == b"0"
            local.transport.set_protocol(local)


# Receiving.


@pytest.mark.parametrize("count", [1, 2, 7, 63, 64, 65, 130])
async def test_a_crowd_of_datagrams_arrives_in_order_and_whole(loop, count):
    with peer() as first, peer() as second:
        async with endpoint() as local:
            sent = []
            for _ in range(3):  # the batches grow with the crowd
                for number in range(count):
                    sender = (first, second)[number % 2]
                    data = b"%d " % number * (number + 1)
                    sender.sendto(data, name_of(local))
                    sent.append((data, sender.getsockname()))
                await local.datagrams(len(sent))
            assert local.received == sent


async def test_ten_thousand_datagrams(loop):
    """In portions that a socket's buffer holds."""
    with peer() as other:
        async with endpoint() as local:
            for start in range(0, 10_000, 100):
                for number in range(start, start + 100):
                    other.sendto(b"%d" % number, name_of(local))
                await local.datagrams(start + 100)
            assert [int(data) for data, _ in local.received] == list(range(10_000))


async def test_more_datagrams_than_the_kernel_keeps(loop):
    """Some are dropped, by the kernel, and everything goes on."""
    with peer() as other:
        async with endpoint() as local:
            for number in range(10_000):
                other.sendto(b"%d" % number, name_of(local))
            await local.datagrams(100)
            while local.received[-1][0] != b"end":
                other.sendto(b"end", name_of(local))
                await asyncio.sleep(0.001)
            numbers = [int(data) for data, _ in local.received if data != b"end"]
            assert numbers == sorted(set(numbers))
            assert local.errors == []


async def test_many_peers(loop):
    """More than are remembered by their addresses."""
    with contextlib.ExitStack() as stack:
        others = [stack.enter_context(peer()) for _ in range(200)]
        async with endpoint() as local:
            for portion in (others[:100], others[100:], others[::2]):
                before = len(local.received)
                for other in portion:
                    other.sendto(b"x", name_of(local))
                await local.datagrams(before + len(portion))
                for (_, address), other in zip(local.received[before:], portion, strict=True):
                    assert address == other.getsockname()
                    local.transport.sendto(b"%d" % address[1], address)
                await asyncio.sleep(0)
                for other in portion:
                    assert other.recv(100) == b"%d" % other.getsockname()[1]


async def test_an_empty_datagram_arrives(loop):
    with peer() as other:
        async with endpoint() as local:
            for data in (b"", b"x", b"", b""):
                other.sendto(data, name_of(local))
            assert await local.datagrams(4) == [b"", b"x", b"", b""]


async def test_the_largest_datagrams_arrive_whole(loop):
    data = bytes(range(256)) * 255 + bytes(227)
    assert len(data) == 65507
    with peer() as other:
        async with endpoint() as local:
            for round in range(1, 12):
                for _ in range(2):
                    other.sendto(data, name_of(local))
                assert await local.datagrams(2 * round) == [data] * (2 * round)


async def test_a_large_unix_datagram_arrives_whole(loop, tmp_path):
    ours = str(tmp_path / "ours")
    data = bytes(150_000)
    async with endpoint(family=socket.AF_UNIX, local_addr=ours) as local:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
            other.settimeout(peers.LIMIT)
            with peers.in_thread(lambda: [other.sendto(data, ours) for _ in range(5)]):
                assert await local.datagrams(5) == [data] * 5


async def test_a_datagram_beyond_asyncios_limit_is_cut(loop, tmp_path):
    ours = str(tmp_path / "ours")
    data = bytes(range(256)) * 1200
    async with endpoint(family=socket.AF_UNIX, local_addr=ours) as local:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
            try:
                other.sendto(data, ours)
            except OSError as error:
                pytest.skip(f"the kernel sends no datagram of {len(data)} bytes: {error}")
            other.sendto(b"next", ours)
            assert await local.datagrams(2) == [data[: 256 * 1024], b"next"]


async def test_an_address_family_that_only_the_socket_module_knows(loop):
    try:
        sock = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, socket.NETLINK_ROUTE)
        sock.bind((0, 0))
    except OSError as error:
        pytest.skip(f"no netlink here: {error}")
    async with endpoint(sock=sock) as local:
        # RTM_GETLINK, as a dump: sixteen bytes of header and one of family, padded.
        request = b"\x14\0\0\0\x12\0\x01\x03\x01\0\0\0\0\0\0\0\0\0\0\0"
        local.transport.sendto(request, (0, 0))
        await local.datagrams(1)
        assert local.received[0][1] == (0, 0)


@pytest.mark.parametrize("way", ["close", "abort"])
async def test_a_protocol_that_closes_gets_nothing_more(loop, way):
    class Closing(Recorder):
        def datagram_received(self, data, addr):
            super().datagram_received(data, addr)
            if data == b"2":
                getattr(self.transport, way)()

    with peer() as other:
        async with endpoint(Closing) as local:
            for number in range(10):
                other.sendto(b"%d" % number, name_of(local))
            await local.lost
            assert [data for data, _ in local.received] == [b"0", b"1", b"2"]


async def test_a_protocol_that_pauses_reading_gets_the_rest_later(loop):
    class Pausing(Recorder):
        def datagram_received(self, data, addr):
            super().datagram_received(data, addr)
            self.transport.pause_reading()

    with peer() as other:
        async with endpoint(Pausing) as local:
            assert local.transport.is_reading()
            for number in range(30):
                other.sendto(b"%d" % number, name_of(local))
            for number in range(30):
                await local.datagrams(number + 1)
                assert not local.transport.is_reading()
                await asyncio.sleep(0)
                assert len(local.received) == number + 1
                local.transport.resume_reading()
            assert [int(data) for data, _ in local.received] == list(range(30))


async def test_a_paused_endpoint_can_be_closed(loop):
    class Pausing(Recorder):
        def datagram_received(self, data, addr):
            super().datagram_received(data, addr)
            self.transport.pause_reading()

    with peer() as other:
        async with endpoint(Pausing) as local:
            for number in range(30):
                other.sendto(b"%d" % number, name_of(local))
            await local.datagrams(1)
            local.transport.close()
            local.transport.resume_reading()
            await local.lost
            assert len(local.received) == 1


async def test_an_exception_of_datagram_received_is_reported_and_ends_nothing(loop, reported):
    class Failing(Recorder):
        def datagram_received(self, data, addr):
            super().datagram_received(data, addr)
            raise ZeroDivisionError

    with peer() as other:
        async with endpoint(Failing) as local:
            for _ in range(20):
                other.sendto(b"x", name_of(local))
            await local.datagrams(20)
            await asyncio.sleep(0)
    assert len(reported) == 20
    assert all(isinstance(context["exception"], ZeroDivisionError) for context in reported)
    reported.clear()


def test_what_ends_the_loop_in_datagram_received_loses_nothing(loop):
    class Ending(Recorder):
        def datagram_received(self, data, addr):
            super().datagram_received(data, addr)
            raise SystemExit

    async def begin():
        return await loop.create_datagram_endpoint(Ending, local_addr=(LOCALHOST, 0))

    transport, protocol = loop.run_until_complete(begin())
    with peer() as other:
        for number in range(20):
            other.sendto(b"%d" % number, name_of(protocol))
    for _ in range(20):
        with pytest.raises(SystemExit):
            loop.run_forever()
    assert [int(data) for data, _ in protocol.received] == list(range(20))
    transport.close()
    loop.run_until_complete(protocol.lost)


async def test_protocols_run_in_the_context_in_which_the_endpoint_was_made(loop):
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")
    seen = []

    class Looking(Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            seen.append(variable.get())

        def datagram_received(self, data, addr):
            super().datagram_received(data, addr)
            seen.append(variable.get())

        def connection_lost(self, exc):
            super().connection_lost(exc)
            seen.append(variable.get())

    with peer() as other:
        variable.set("set")
        async with endpoint(Looking) as local:
            other.sendto(b"x", name_of(local))
            await local.datagrams(1)
    assert seen == ["set"] * 3


# Sending.


async def test_a_lone_datagram_leaves_at_once(loop):
    with peer() as other:
        async with endpoint() as local:
            local.transport.sendto(b"x", other.getsockname())
            assert other.recv(100) == b"x"  # without a turn of the loop in between
            await asyncio.sleep(0)
            local.transport.sendto(b"y", other.getsockname())
            assert other.recv(100) == b"y"


@pytest.mark.parametrize("count", [2, 63, 64, 65, 150])
async def test_a_burst_leaves_in_order(loop, count):
    with peer() as first, peer() as second:
        async with endpoint() as local:
            for number in range(count):
                other = (first, second)[number % 3 == 0]
                local.transport.sendto(b"%d" % number, other.getsockname())
            await asyncio.sleep(0)
            assert local.transport.get_write_buffer_size() == 0
            expected = [b"%d" % number for number in range(count)]
            assert [first.recv(100) for number in range(count) if number % 3] == [
                data for number, data in enumerate(expected) if number % 3
            ]
            assert [second.recv(100) for _ in expected[::3]] == expected[::3]


async def test_answers_to_a_crowd(loop):
    class Echo(Recorder):
        def datagram_received(self, data, addr):
            self.transport.sendto(data, addr)

    with contextlib.ExitStack() as stack:
        others = [stack.enter_context(peer()) for _ in range(50)]
        async with endpoint(Echo) as local:
            for round in range(5):
                for number, other in enumerate(others):
                    other.sendto(b"%d %d" % (round, number), name_of(local))
                expected = [b"%d %d" % (round, number) for number in range(len(others))]
                answers = await loop.run_in_executor(None, lambda: [other.recv(100) for other in others])
                assert answers == expected


async def test_every_kind_of_bytes(loop):
    with peer() as other:
        async with endpoint() as local:
            mutable = bytearray(b"before")
            for data in (b"bytes", b"again", mutable, memoryview(b"a view")[2:], memoryview(mutable)):
                local.transport.sendto(data, other.getsockname())
            mutable[:] = b"after!"
            await asyncio.sleep(0)
            assert [other.recv(100) for _ in range(5)] == [b"bytes", b"again", b"before", b"view", b"before"]


async def test_an_empty_datagram_is_sent(loop):
    with peer() as other:
        for options in ({"remote_addr": other.getsockname()}, {"local_addr": (LOCALHOST, 0)}):
            async with endpoint(**options) as local:
                for data in (b"", b"x", bytearray(), b"y"):
                    local.transport.sendto(data, other.getsockname())
                await asyncio.sleep(0)
                expected = [b"", b"x", b"", b"y"] if SENDS_EMPTY_DATAGRAMS else [b"x", b"y"]
                assert [other.recv(100) for _ in expected] == expected


@pytest.mark.parametrize("data", ["text", 7, None, [b"x"]])
async def test_what_is_no_bytes_is_refused(loop, data):
    async with endpoint(local_addr=(LOCALHOST, 0)) as local:
        with pytest.raises(TypeError, match="data argument must be a bytes-like object, not"):
            local.transport.sendto(data, (LOCALHOST, 9))
        assert not local.transport.is_closing()


async def test_bytes_that_are_scattered_close_the_transport(loop, reported):
    async with endpoint() as local:
        local.transport.sendto(memoryview(b"abcdef")[::2], (LOCALHOST, 9))
        assert isinstance(await local.lost, BufferError)
    (context,) = reported
    assert context["message"] == "Fatal write error on datagram transport"
    reported.clear()


async def test_a_connected_endpoint_refuses_another_address(loop):
    with peer() as other:
        remote = other.getsockname()
        async with endpoint(remote_addr=remote) as local:
            local.transport.sendto(b"1", None)
            local.transport.sendto(b"2", remote)
            with pytest.raises(ValueError, match="Invalid address: must be None or"):
                local.transport.sendto(b"3", (LOCALHOST, 9))
            local.transport.sendto(b"4")
            assert [other.recv(100) for _ in range(3)] == [b"1", b"2", b"4"]


@pytest.mark.parametrize(
    ("address", "error"),
    [
        (None, TypeError),
        (LOCALHOST, TypeError),
        ((LOCALHOST,), TypeError),
        ((LOCALHOST, "9"), TypeError),
        ((LOCALHOST, 65536), OverflowError),
        ((LOCALHOST, -1), OverflowError),
        ((LOCALHOST, 9, 0, 0), TypeError),
        ([LOCALHOST, 9], TypeError),
    ],
)
async def test_an_address_that_is_none_closes_the_transport(loop, reported, address, error):
    """As with asyncio, whose socket call raises something else than OSError."""
    async with endpoint(local_addr=(LOCALHOST, 0)) as local:
        local.transport.sendto(b"x", address)
        assert local.transport.is_closing()
        assert isinstance(await local.lost, error)
    (context,) = reported
    assert context["message"] == "Fatal write error on datagram transport"
    assert context["transport"] is local.transport
    assert context["protocol"] is local
    reported.clear()


async def test_names_are_resolved(loop):
    with peer() as other:
        async with endpoint() as local:
            for address in (("localhost", other.getsockname()[1]), other.getsockname()):
                for _ in range(2):
                    local.transport.sendto(b"x", address)
            await asyncio.sleep(0)
            assert [other.recv(100) for _ in range(4)] == [b"x"] * 4


class Address(NamedTuple):
    host: Any
    port: int


@pytest.mark.parametrize(
    "host",
    [
        LOCALHOST,
        "127.1",
        "0x7f000001",
        "127.000.000.001",
        "2130706433",
        "",
        b"127.0.0.1",
        bytearray(b"127.1"),
    ],
)
async def test_every_spelling_of_an_address(loop, host):
    with peer() as other:
        async with endpoint(local_addr=(LOCALHOST, 0)) as local:
            for _ in range(2):
                local.transport.sendto(b"x", Address(host, other.getsockname()[1]))
            await asyncio.sleep(0)
            assert [other.recv(100), other.recv(100)] == [b"x", b"x"]


@pytest.mark.parametrize("rest", [(), (0,), (0xFFFFF,), (0, 0), (0, 1)])
@pytest.mark.parametrize("host", ["::1", "0:0:0:0:0:0:0:1", "::0.0.0.1", "::1%lo", "ip6-localhost"])
async def test_every_spelling_of_an_ipv6_address(loop, host, rest):
    try:
        socket.getaddrinfo(host, 9, socket.AF_INET6)
    except socket.gaierror as error:
        pytest.skip(f"{host} is unknown here: {error}")
    with peer(socket.AF_INET6, "::1") as other:
        async with endpoint(local_addr=("::1", 0)) as local:
            for _ in range(2):
                local.transport.sendto(b"x", (host, other.getsockname()[1], *rest))
            await asyncio.sleep(0)
            assert [other.recv(100), other.recv(100)] == [b"x", b"x"]


@pytest.mark.parametrize("rest", [(0x100000,), (-1,), (0, 0, 0), ("0",), (0, "lo")])
async def test_wrong_numbers_of_an_ipv6_address_close_the_transport(loop, reported, rest):
    async with endpoint(local_addr=("::1", 0)) as local:
        local.transport.sendto(b"x", ("::1", 9, *rest))
        assert isinstance(await local.lost, OverflowError if len(rest) == 1 and rest != ("0",) else TypeError)
    assert len(reported) == 1
    reported.clear()


async def test_a_name_that_is_none_is_an_error_of_the_network(loop):
    async with endpoint() as local:
        local.transport.sendto(b"x", ("256.256.256.256", 9))
        (error,) = local.errors
        assert isinstance(error, socket.gaierror)
        assert not local.transport.is_closing()


async def test_a_name_between_addresses_keeps_the_order(loop):
    with peer() as other:
        async with endpoint() as local:
            host, port = other.getsockname()
            for number, name in enumerate((host, host, "localhost", host, "localhost", host)):
                local.transport.sendto(b"%d" % number, (name, port))
            await asyncio.sleep(0)
            assert [other.recv(100) for _ in range(6)] == [b"%d" % number for number in range(6)]


async def test_options_concern_the_datagrams_after_them(loop):
    """Also those of one turn, which leave together."""
    with peer() as other:
        other.setsockopt(socket.IPPROTO_IP, IP_RECVTTL, 1)
        async with endpoint() as local:
            sock = local.transport.get_extra_info("socket")
            for lifetime in range(1, 6):
                sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, lifetime)
                local.transport.sendto(b"x", other.getsockname())
            await asyncio.sleep(0)
            seen = []
            for _ in range(5):
                _, ancillary, _, _ = other.recvmsg(100, 100)
                ((_, _, data),) = ancillary
                seen.append(int.from_bytes(data, sys.byteorder))
            assert seen == [1, 2, 3, 4, 5]


async def test_another_thread_may_send(loop):
    with peer() as other:
        async with endpoint() as local:

            def send():
                for number in range(100):
                    local.transport.sendto(b"%d" % number, other.getsockname())

            await loop.run_in_executor(None, send)
            assert [other.recv(100) for _ in range(100)] == [b"%d" % number for number in range(100)]


async def test_another_thread_may_not_close(loop, is_aioxide):
    if not is_aioxide:
        pytest.skip("asyncio lets it, and may break")
    async with endpoint() as local:
        for method in ("close", "abort", "pause_reading", "resume_reading"):
            with pytest.raises(RuntimeError, match="Non-thread-safe"):
                await loop.run_in_executor(None, getattr(local.transport, method))
        assert not local.transport.is_closing()


# Errors of the network.


async def test_a_datagram_that_is_too_long(loop):
    with peer() as other:
        async with endpoint() as local:
            local.transport.sendto(bytes(65508), other.getsockname())
            assert [type(error) for error in local.errors] == [OSError]
            assert "too long" in str(local.errors[0])
            local.transport.sendto(b"x", other.getsockname())
            assert other.recv(100) == b"x"
            assert not local.transport.is_closing()


async def test_errors_in_a_burst_concern_their_datagrams_only(loop):
    with peer() as other:
        async with endpoint() as local:
            for number in range(40):
                data = bytes(65508) if number % 5 == 4 else b"%d" % number
                local.transport.sendto(data, other.getsockname())
            errors = await local.failures(8)
            assert ["too long" in str(error) for error in errors] == [True] * 8
            expected = [b"%d" % number for number in range(40) if number % 5 != 4]
            assert [other.recv(100) for _ in expected] == expected


async def test_nobody_listens_at_the_peers_address(loop):
    with peer() as other:
        address = other.getsockname()
    async with endpoint(remote_addr=address) as local:
        for round in range(1, 4):
            local.transport.sendto(b"x")
            errors = await local.failures(round)
            assert all(isinstance(error, ConnectionRefusedError) for error in errors)
        assert not local.transport.is_closing()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as returned:
            returned.bind(address)
            returned.settimeout(peers.LIMIT)
            local.transport.sendto(b"y")
            assert returned.recv(100) == b"y"


async def test_nobody_listens_and_nobody_knows(loop):
    """An unconnected socket is not told of ICMP's refusals."""
    with peer() as other:
        address = other.getsockname()
    async with endpoint() as local:
        for _ in range(10):
            local.transport.sendto(b"x", address)
        await asyncio.sleep(0.01)
        assert local.errors == []


async def test_an_address_that_may_not_be_sent_to(loop):
    async with endpoint() as local:
        for number in range(3):
            local.transport.sendto(b"x", ("255.255.255.255", 9))
            await local.failures(number + 1)
        assert all(isinstance(error, PermissionError) for error in local.errors)


async def test_a_unix_peer_that_is_gone(loop, tmp_path):
    path = str(tmp_path / "theirs")
    with unix_peer(path):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        sock.bind(str(tmp_path / "ours"))
    async with endpoint(sock=sock) as local:
        local.transport.sendto(b"x", path)
        local.transport.sendto(b"x", str(tmp_path / "nobody"))
        await local.failures(2)
        assert [type(error) for error in local.errors] == [ConnectionRefusedError, FileNotFoundError]


async def test_an_exception_of_error_received_reaches_who_sends(loop):
    class Failing(Recorder):
        def error_received(self, exc):
            raise ZeroDivisionError from exc

    async with endpoint(Failing) as local:
        with pytest.raises(ZeroDivisionError):
            local.transport.sendto(bytes(65508), (LOCALHOST, 9))
        assert not local.transport.is_closing()


async def test_an_exception_of_error_received_while_receiving_is_reported(loop, reported):
    class Failing(Recorder):
        def error_received(self, exc):
            super().error_received(exc)
            raise ZeroDivisionError from exc

    with peer() as other:
        address = other.getsockname()
    async with endpoint(Failing, remote_addr=address) as local:
        local.transport.sendto(b"x")
        await local.failures(1)
        await asyncio.sleep(0)
        assert not local.transport.is_closing()
    (context,) = reported
    assert isinstance(context["exception"], ZeroDivisionError)
    reported.clear()


async def test_an_error_that_is_answered_with_a_datagram(loop):
    """The next datagram may fail too: nothing goes round for ever."""

    class Stubborn(Recorder):
        def error_received(self, exc):
            super().error_received(exc)
            if len(self.errors) < 20:
                loop.call_soon(self.transport.sendto, bytes(65508), (LOCALHOST, 9))

    async with endpoint(Stubborn) as local:
        for _ in range(3):
            local.transport.sendto(bytes(65508), (LOCALHOST, 9))
        await local.failures(20)


# Flow control.


@pytest.fixture
def unix_receiver(tmp_path: Any) -> Any:
    """A Unix datagram socket whose queue of a few datagrams holds a sender up."""
    with unix_peer(str(tmp_path / "theirs")) as sock:
        yield sock


@pytest.fixture
def slow(unix_receiver: Any) -> Any:
    """An endpoint whose peer has not received anything yet."""
    return endpoint(family=socket.AF_UNIX, remote_addr=unix_receiver.getsockname())


async def test_a_full_peer_pauses_the_protocol(loop, unix_receiver, slow):
    async with slow as local:
        assert local.transport.get_write_buffer_limits() == (16 * 1024, 64 * 1024)
        local.transport.set_write_buffer_limits(high=4000, low=1000)
        assert local.transport.get_write_buffer_limits() == (1000, 4000)
        count = fill(local.transport, bytes(1000))
        assert "write=<polling" in repr(local.transport)
        while "pause_writing" not in local.calls:
            local.transport.sendto(bytes(1000))
            count += 1
        assert local.transport.get_write_buffer_size() > 4000
        while "resume_writing" not in local.calls:
            count -= receive_all(unix_receiver)
            await asyncio.sleep(0)
        assert local.transport.get_write_buffer_size() <= 1000 + 8 * 100  # a header counts in some versions
        assert local.calls == ["connection_made", "pause_writing", "resume_writing"]
        while count:
            count -= receive_all(unix_receiver)
            await asyncio.sleep(0)


async def test_new_limits_pause_at_once(loop, unix_receiver, slow):
    async with slow as local:
        fill(local.transport, bytes(1000))
        assert "pause_writing" not in local.calls
        local.transport.set_write_buffer_limits(high=0)
        if "pause_writing" not in local.calls:
            local.transport.sendto(b"x")  # asyncio looks when something is sent
        assert "pause_writing" in local.calls
        local.transport.abort()


async def test_wrong_limits(loop):
    async with endpoint() as local:
        with pytest.raises(ValueError, match="must be >= low"):
            local.transport.set_write_buffer_limits(high=1, low=2)


async def test_what_waits_leaves_in_order(loop, unix_receiver, slow):
    async with slow as local:
        for number in range(500):
            local.transport.sendto(b"%d" % number)
        received = await loop.run_in_executor(None, lambda: [unix_receiver.recv(100) for _ in range(500)])
        assert received == [b"%d" % number for number in range(500)]


async def test_close_sends_what_waits(loop, unix_receiver, slow):
    async with slow as local:
        for number in range(200):
            local.transport.sendto(b"%d" % number)
        local.transport.close()
        local.transport.close()
        await asyncio.sleep(0.01)
        assert not local.lost.done()
        received = await loop.run_in_executor(None, lambda: [unix_receiver.recv(100) for _ in range(200)])
        assert received == [b"%d" % number for number in range(200)]
        assert await local.lost is None


async def test_close_sends_what_the_turn_gathered(loop):
    with peer() as other:
        async with endpoint() as local:
            for number in range(10):
                local.transport.sendto(b"%d" % number, other.getsockname())
            local.transport.close()
            assert await local.lost is None
            assert [other.recv(100) for _ in range(10)] == [b"%d" % number for number in range(10)]


async def test_abort_drops_what_waits(loop, unix_receiver, slow):
    async with slow as local:
        fill(local.transport, b"x")
        local.transport.sendto(b"lost")
        local.transport.abort()
        assert await local.lost is None
        unix_receiver.setblocking(False)
        received = []
        with contextlib.suppress(BlockingIOError):
            while True:
                received.append(unix_receiver.recv(100))
        assert b"lost" not in received


async def test_abort_after_close(loop, unix_receiver, slow):
    async with slow as local:
        fill(local.transport, b"x")
        local.transport.close()
        local.transport.abort()
        assert await local.lost is None


async def test_a_receiver_that_vanishes_while_datagrams_wait(loop, unix_receiver, slow):
    async with slow as local:
        fill(local.transport, b"x")
        local.transport.sendto(b"y")
        unix_receiver.close()
        errors = await local.failures(1)
        assert isinstance(errors[0], ConnectionRefusedError | ConnectionResetError | BrokenPipeError)
        local.transport.abort()


async def test_a_full_receiver_of_an_unconnected_endpoint(loop, unix_receiver, tmp_path):
    """The kernel says that there is room, and takes nothing: other work goes on."""
    remote = unix_receiver.getsockname()
    async with endpoint(family=socket.AF_UNIX, local_addr=str(tmp_path / "ours")) as local:
        for number in range(200):
            local.transport.sendto(b"%d" % number, remote)
        await asyncio.sleep(0.02)
        received = await loop.run_in_executor(None, lambda: [unix_receiver.recv(100) for _ in range(200)])
        assert received == [b"%d" % number for number in range(200)]
        await asyncio.sleep(0)


async def test_a_pause_of_false_room_does_not_survive_abort(loop, unix_receiver, tmp_path):
    remote = unix_receiver.getsockname()
    async with endpoint(family=socket.AF_UNIX, local_addr=str(tmp_path / "ours")) as local:
        for number in range(200):
            local.transport.sendto(b"%d" % number, remote)
        await asyncio.sleep(0.02)
        local.transport.abort()
        await local.lost
        await asyncio.sleep(0.01)


async def test_exceptions_of_flow_control_are_reported(loop, unix_receiver, reported):
    class Failing(Recorder):
        def pause_writing(self):
            super().pause_writing()
            raise ZeroDivisionError

        resume_writing = pause_writing

    async with endpoint(Failing, family=socket.AF_UNIX, remote_addr=unix_receiver.getsockname()) as local:
        local.transport.set_write_buffer_limits(high=1000, low=500)
        count = fill(local.transport, bytes(1001))
        await loop.run_in_executor(None, lambda: [unix_receiver.recv(1000) for _ in range(count)])
        await local.until(lambda: local.calls.count("pause_writing") == 2)
    messages = [context["message"] for context in reported]
    assert messages == ["protocol.pause_writing() failed", "protocol.resume_writing() failed"]
    reported.clear()


# The end.


async def test_sending_after_the_end(loop, caplog):
    with peer() as other:
        async with endpoint(remote_addr=other.getsockname()) as local:
            local.transport.close()
            for _ in range(4):
                local.transport.sendto(b"x")
            assert "raised exception" not in caplog.text
            for _ in range(4):
                local.transport.sendto(b"x")
            assert "socket.send() raised exception." in caplog.text
            other.setblocking(False)
            with pytest.raises(BlockingIOError):
                other.recv(100)


@pytest.mark.parametrize("method", ["connection_made", "connection_lost"])
async def test_exceptions_of_the_first_and_the_last_call_are_reported(loop, reported, method):
    def fail(self, *arguments):
        getattr(Recorder, method)(self, *arguments)
        raise ZeroDivisionError

    failing = type("Failing", (Recorder,), {method: fail})
    with peer() as other:
        async with endpoint(failing) as local:
            other.sendto(b"x", name_of(local))
            assert await local.datagrams(1) == [b"x"]
        await asyncio.sleep(0)
    (context,) = reported
    assert isinstance(context["exception"], ZeroDivisionError)
    reported.clear()


def test_an_endpoint_that_is_left_open_warns(loop):
    async def begin():
        await loop.create_datagram_endpoint(Recorder, local_addr=(LOCALHOST, 0))

    loop.run_until_complete(begin())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loop.close()
        gc.collect()
    messages = [str(warning.message) for warning in caught if warning.category is ResourceWarning]
    assert any("unclosed transport <" in message and "Datagram" in message for message in messages)


def test_a_loop_closed_with_endpoints_that_have_work(loop, tmp_path):
    async def begin():
        with unix_peer(str(tmp_path / "theirs")) as other:
            transport, _ = await loop.create_datagram_endpoint(
                Recorder, family=socket.AF_UNIX, remote_addr=other.getsockname()
            )
            fill(transport, b"x")
            busy, protocol = await loop.create_datagram_endpoint(Recorder, local_addr=(LOCALHOST, 0))
            with peer() as sender:
                for _ in range(10):
                    sender.sendto(b"x", name_of(protocol))
        return transport, busy

    transports = loop.run_until_complete(begin())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        loop.close()
        assert len(transports) == 2
        del transports
        gc.collect()


async def test_debug_mode(loop):
    loop.set_debug(True)
    with peer() as other:
        async with endpoint(remote_addr=other.getsockname()) as local:
            local.transport.sendto(b"x")
            data, address = other.recvfrom(100)
            other.sendto(data, address)
            assert await local.datagrams(1) == [b"x"]
            local.transport.pause_reading()
            local.transport.resume_reading()


async def test_many_endpoints(loop):
    with peer() as other:
        transports = []
        for number in range(300):
            transport, _ = await loop.create_datagram_endpoint(Recorder, remote_addr=other.getsockname())
            transport.sendto(b"%d" % number)
            assert other.recv(100) == b"%d" % number
            transports.append(transport)
        protocols = [transport.get_protocol() for transport in transports]
        for transport in transports:
            transport.close()
        await asyncio.gather(*(protocol.lost for protocol in protocols))


async def test_senders_in_threads_while_the_loop_answers(loop):
    class Echo(Recorder):
        def datagram_received(self, data, addr):
            self.transport.sendto(data, addr)

    async with endpoint(Echo) as local:
        address = name_of(local)

        def converse(start: int) -> None:
            with peer() as other:
                for number in range(start, start + 200):
                    other.sendto(b"%d" % number, address)
                    assert other.recv(100) == b"%d" % number

        await asyncio.gather(*(loop.run_in_executor(None, converse, 1000 * index) for index in range(4)))
