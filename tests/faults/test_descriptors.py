"""EMFILE everywhere: no descriptor left; or a few, so that an operation fails at each in turn."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import socket
import subprocess
import sys
import threading
import time

import pytest
from leaks import children, open_files
from peers import listening
from recorder import Recorder
from scarcity import few_files, no_more_files

__all__ = ["few_files"]

pytestmark = pytest.mark.usefixtures("few_files")

# More than any operation here opens.
ENOUGH = 16


class Accepting(asyncio.Protocol):
    """Keeps the transports of a server's connections."""

    def __init__(self, accepted):
        self._accepted = accepted

    def connection_made(self, transport):
        self._accepted.append(transport)


@pytest.mark.timeout(60)
async def test_a_server_without_file_descriptors_recovers(loop, reported, caplog, is_aioxide):
    accepted: list[asyncio.Transport] = []
    server = await loop.create_server(lambda: Accepting(accepted), "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    client = socket.socket()
    client.setblocking(False)
    with no_more_files(), caplog.at_level(logging.ERROR, "asyncio"):
        assert client.connect_ex(address) in (0, 115)
        begin = time.process_time()
        await asyncio.sleep(0.2)
        assert accepted == []
        assert time.process_time() - begin < 0.15, "the loop spins"
        if is_aioxide:  # asyncio tells it once for each place in the backlog
            assert len(reported) == 1
    async with asyncio.timeout(10):
        while not accepted:
            await asyncio.sleep(0.01)
    if not is_aioxide:  # it tries again as often, also on the closed server
        await asyncio.sleep(0.1)
    contexts = [reported.pop() for _ in range(len(reported))]
    assert all("out of system resource" in context["message"] for context in contexts)
    assert contexts
    accepted[0].abort()
    client.close()
    server.close()
    await server.wait_closed()


async def test_connections_go_on_while_no_new_one_can_be_accepted(loop, reported):
    accepted: list[asyncio.Transport] = []
    server = await loop.create_server(lambda: Accepting(accepted), "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    reader, writer = await asyncio.open_connection(*address)
    while not accepted:
        await asyncio.sleep(0.001)
    late = socket.socket()
    late.setblocking(False)
    with no_more_files():
        assert late.connect_ex(address) in (0, 115)
        while not reported:
            await asyncio.sleep(0.001)
        accepted[0].write(b"still here")
        assert await reader.readexactly(10) == b"still here"
        server.close()  # and while it waits to try again
    reported.clear()
    late.close()
    for transport in accepted:
        transport.abort()
    writer.close()
    await writer.wait_closed()
    await server.wait_closed()


async def test_a_connection_without_file_descriptors_is_an_os_error(loop):
    with listening() as server:
        address = server.getsockname()
        with no_more_files(), pytest.raises(OSError, match="Too many open files"):
            await loop.create_connection(asyncio.Protocol, *address)


async def test_what_needs_no_descriptor_works_without(loop):
    # Python imports modules when it needs them, and that needs a descriptor.
    await asyncio.to_thread("name".encode, "idna")
    with no_more_files():
        ran = asyncio.Event()
        threading.Thread(target=loop.call_soon_threadsafe, args=(ran.set,)).start()
        await ran.wait()
        await asyncio.sleep(0.001)
        assert await asyncio.to_thread(int, "1") == 1
        assert await loop.getaddrinfo("127.0.0.1", 80, type=socket.SOCK_STREAM)
        # Where names come from cannot be opened: it fails, or it was in memory.
        with contextlib.suppress(OSError):
            await loop.getaddrinfo("localhost", 80, type=socket.SOCK_STREAM)
    assert await loop.getaddrinfo("localhost", 80, type=socket.SOCK_STREAM)


def test_a_loop_without_file_descriptors_cannot_be_made(loop_factory, is_aioxide):
    if not is_aioxide:
        pytest.skip("asyncio leaves a half-made loop to the garbage collector")
    files = open_files()
    for count in range(ENOUGH):
        with no_more_files(but=count):
            try:
                loop = loop_factory()
            except OSError as error:
                failure = str(error)
            else:
                break
        assert "Too many open files" in failure
        assert open_files() == files
    else:
        raise AssertionError(f"a loop needs more than {ENOUGH} descriptors")
    assert count > 0
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    assert open_files() == files


async def fails_cleanly_until_there_are_enough(operation, at_least=1):
    """Run an operation with no descriptor, one, two, ...: OSError and no leak, until it works."""
    await operation()  # what it opens once and for all
    await settle()
    files = open_files()
    for count in range(ENOUGH):
        failure = None
        with no_more_files(but=count):
            try:
                await operation()
            except OSError as error:
                failure = error
        await settle()
        gc.collect()
        if open_files() != files:  # what is closed by the kernel's or a thread's hand takes a moment
            await asyncio.sleep(0.1)
            gc.collect()
        assert open_files() == files, f"with {count} descriptors"
        if failure is None:
            assert count >= at_least, "it opened nothing"
            return
    raise failure


async def settle():
    async with asyncio.timeout(10):
        await asyncio.sleep(0.002)
        while children():
            await asyncio.sleep(0.002)


async def test_create_connection(loop):
    with listening(backlog=64) as server:
        address = server.getsockname()

        async def operation():
            transport, protocol = await loop.create_connection(lambda: Recorder(loop), *address)
            transport.abort()
            await protocol.lost

        await fails_cleanly_until_there_are_enough(operation)


async def test_create_connection_by_name(loop):
    with listening(backlog=64) as server:
        port = server.getsockname()[1]

        async def operation():
            transport, protocol = await loop.create_connection(lambda: Recorder(loop), "localhost", port)
            transport.abort()
            await protocol.lost

        await fails_cleanly_until_there_are_enough(operation)


async def test_create_server(loop):
    async def operation():
        server = await loop.create_server(asyncio.Protocol, ["127.0.0.1", "127.0.0.2", "127.0.0.3"], 0)
        server.close()
        await server.wait_closed()

    # asyncio listens on those addresses for which it got a socket; before Python 3.13, on none.
    await fails_cleanly_until_there_are_enough(operation, at_least=sys.version_info >= (3, 13))


async def test_create_unix_server(loop, tmp_path):
    async def operation():
        server = await loop.create_unix_server(asyncio.Protocol, str(tmp_path / "socket"))
        server.close()
        await server.wait_closed()

    await fails_cleanly_until_there_are_enough(operation)


async def test_create_unix_connection(loop, tmp_path):
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen(64)

        async def operation():
            transport, protocol = await loop.create_unix_connection(lambda: Recorder(loop), path)
            transport.abort()
            await protocol.lost

        await fails_cleanly_until_there_are_enough(operation)


async def test_create_datagram_endpoint(loop):
    async def operation():
        transport, _ = await loop.create_datagram_endpoint(
            asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0)
        )
        transport.abort()

    await fails_cleanly_until_there_are_enough(operation)


async def test_pipes(loop):
    async def operation():
        reading, writing = os.pipe()
        protocol = Recorder(loop)
        source, _ = await loop.connect_read_pipe(lambda: protocol, os.fdopen(reading, "rb", 0))
        sink, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, os.fdopen(writing, "wb", 0))
        sink.write(b"hello")
        sink.close()
        assert await protocol.received(5) == b"hello"
        await protocol.lost
        source.close()

    await fails_cleanly_until_there_are_enough(operation)


@pytest.mark.parametrize("streams", ["none", "all"])
async def test_subprocesses(loop, streams, is_aioxide):
    pipe = subprocess.DEVNULL if streams == "none" else subprocess.PIPE
    if not is_aioxide and sys.version_info < (3, 12):
        pytest.skip("asyncio's child watcher of this version is made once, at a bad moment here")

    async def operation():
        process = await asyncio.create_subprocess_exec("true", stdin=pipe, stdout=pipe, stderr=pipe)
        await process.communicate()
        assert process.returncode == 0
        process._transport.close()

    await fails_cleanly_until_there_are_enough(operation)


async def test_accepting_by_hand(loop):
    with listening() as server:
        server.setblocking(False)
        address = server.getsockname()
        with socket.create_connection(address):
            with no_more_files(), pytest.raises(OSError, match="Too many open files"):
                await loop.sock_accept(server)
            connection, _ = await loop.sock_accept(server)
            connection.close()
