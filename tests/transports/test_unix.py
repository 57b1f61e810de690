"""Unix domain sockets: connections, servers and the files they leave."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import stat
import sys
from pathlib import Path

import pytest
from recorder import Recorder


@pytest.fixture
def path(tmp_path):
    """Where a socket may be made."""
    return str(tmp_path / "socket")


async def make_server(loop, path, **options):
    """Return a server and the list of its protocols."""
    protocols: list[Recorder] = []

    def factory():
        protocols.append(Recorder(loop))
        return protocols[-1]

    return await loop.create_unix_server(factory, path, **options), protocols


async def close(server):
    """Close a server completely."""
    server.close()
    await server.wait_closed()


async def test_a_connection_carries_data_both_ways(loop, path):
    server, protocols = await make_server(loop, path)
    transport, protocol = await loop.create_unix_connection(lambda: Recorder(loop), path)
    transport.write(b"question")
    while not protocols:
        await asyncio.sleep(0)
    assert await protocols[0].received(8) == b"question"
    protocols[0].transport.write(b"answer")
    assert await protocol.received(6) == b"answer"
    assert transport.get_extra_info("peername") == path
    assert transport.get_extra_info("socket").family == socket.AF_UNIX
    transport.close()
    await protocol.lost
    await protocols[0].lost
    await close(server)


async def test_a_path_object_is_a_path(loop, tmp_path):
    server, protocols = await make_server(loop, tmp_path / "socket")
    transport, protocol = await loop.create_unix_connection(lambda: Recorder(loop), tmp_path / "socket")
    transport.close()
    await protocol.lost
    while not protocols:
        await asyncio.sleep(0)
    await protocols[0].lost
    await close(server)


async def test_abstract_names(loop):
    name = f"\0aioxide-{os.getpid()}-{id(loop)}"
    server, protocols = await make_server(loop, name)
    transport, protocol = await loop.create_unix_connection(lambda: Recorder(loop), name)
    transport.close()
    await protocol.lost
    while not protocols:
        await asyncio.sleep(0)
    await protocols[0].lost
    await close(server)


async def test_sockets_can_be_given(loop, path):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        server, protocols = await make_server(loop, None, sock=listener)
        client = socket.socket(socket.AF_UNIX)
        client.connect(path)
        transport, protocol = await loop.create_unix_connection(lambda: Recorder(loop), sock=client)
        transport.write(b"x")
        while not protocols:
            await asyncio.sleep(0)
        assert await protocols[0].received(1) == b"x"
        transport.close()
        await protocol.lost
        await protocols[0].lost
        await close(server)


async def test_a_missing_path_is_file_not_found(loop, path):
    with pytest.raises(FileNotFoundError):
        await loop.create_unix_connection(asyncio.Protocol, path)


async def test_a_dead_socket_is_refused(loop, path):
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    with pytest.raises(ConnectionRefusedError):
        await loop.create_unix_connection(asyncio.Protocol, path)


async def test_a_full_queue_of_a_listener_is_told(loop, path, is_aioxide):
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(path)
        listener.listen(0)
        with contextlib.suppress(BlockingIOError):
            while True:
                waiting = stack.enter_context(socket.socket(socket.AF_UNIX))
                waiting.setblocking(False)
                waiting.connect(path)
        client = stack.enter_context(socket.socket(socket.AF_UNIX))
        client.setblocking(False)
        if is_aioxide:
            with pytest.raises(BlockingIOError):
                await loop.sock_connect(client, path)
        else:
            await loop.sock_connect(client, path)
        with pytest.raises(OSError, match="not connected"):
            client.getpeername()


@pytest.mark.parametrize("spelled", [os.fspath, os.fsencode, Path])
async def test_a_stale_socket_is_replaced_by_a_server(loop, path, spelled):
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(path)
    server, _ = await make_server(loop, spelled(path))
    await close(server)


async def test_another_kind_of_file_is_not_replaced(loop, path):
    with open(path, "w", encoding="ascii"):
        pass
    with pytest.raises(OSError, match="in use"):
        await loop.create_unix_server(asyncio.Protocol, path)
    assert stat.S_ISREG(os.stat(path).st_mode)


@pytest.mark.skipif(sys.version_info < (3, 13), reason="cleanup_socket came with Python 3.13")
@pytest.mark.parametrize("cleanup", [True, False])
async def test_the_file_is_removed_when_asked_for(loop, path, cleanup):
    server, _ = await make_server(loop, path, cleanup_socket=cleanup)
    await close(server)
    assert os.path.exists(path) is not cleanup


@pytest.mark.skipif(sys.version_info < (3, 13), reason="cleanup_socket came with Python 3.13")
async def test_a_detector_of_blocking_calls_has_no_reason_to_complain(loop, path, is_aioxide, monkeypatch):
    """blockbuster refuses `os.unlink`, but to asyncio's own file of Unix sockets."""
    if not is_aioxide:
        pytest.skip("asyncio is excepted by name")
    server, _ = await make_server(loop, path)

    def refuse(path):
        raise AssertionError(f"a blocking call: os.unlink({path!r})")

    monkeypatch.setattr(os, "unlink", refuse)
    await close(server)
    assert not os.path.exists(path)


@pytest.mark.skipif(sys.version_info < (3, 13), reason="cleanup_socket came with Python 3.13")
async def test_a_file_of_somebody_else_is_not_removed(loop, path):
    server, _ = await make_server(loop, path)
    os.unlink(path)
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(path)
        await close(server)
        assert os.path.exists(path)


@pytest.mark.parametrize("method", ["create_unix_connection", "create_unix_server"])
async def test_wrong_options_are_value_errors(loop, path, method):
    call = getattr(loop, method)
    with pytest.raises(ValueError, match="path"):
        await call(asyncio.Protocol)
    with socket.socket() as internet, pytest.raises(ValueError, match="UNIX Domain Stream"):
        await call(asyncio.Protocol, sock=internet)
    with socket.socket(socket.AF_UNIX) as unix, pytest.raises(ValueError, match="path and sock"):
        await call(asyncio.Protocol, path, sock=unix)


async def test_a_path_that_is_too_long_is_an_os_error(loop, tmp_path):
    with pytest.raises(OSError, match="too long"):
        await loop.create_unix_server(asyncio.Protocol, str(tmp_path / ("x" * 200)))


async def test_a_folder_that_does_not_exist_is_file_not_found(loop, tmp_path):
    with pytest.raises(FileNotFoundError):
        await loop.create_unix_server(asyncio.Protocol, str(tmp_path / "missing" / "socket"))


async def test_streams_over_unix_sockets(loop, path):
    async def serve(reader, writer):
        writer.write((await reader.readline()).upper())
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_unix_server(serve, path)
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(b"line\n")
    assert await reader.read() == b"LINE\n"
    writer.close()
    await writer.wait_closed()
    await close(server)


async def test_a_large_transfer_is_exact(loop):
    first, second = socket.socketpair()
    ours, ours_protocol = await loop.create_unix_connection(lambda: Recorder(loop), sock=first)
    theirs, theirs_protocol = await loop.create_unix_connection(lambda: Recorder(loop), sock=second)
    data = os.urandom(8 << 20)
    for start in range(0, len(data), 100_000):
        await ours_protocol.writable.wait()
        ours.write(data[start : start + 100_000])
    assert await theirs_protocol.received(len(data)) == data
    ours.close()
    theirs.close()
    await asyncio.gather(ours_protocol.lost, theirs_protocol.lost)
