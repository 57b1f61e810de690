"""Pipes and sockets whose other end is gone, devices that are full, and SIGPIPE."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import subprocess
import sys

import pytest
from peers import until_it_blocks


class Writing(asyncio.BaseProtocol):
    """Writes down how a pipe ended."""

    def __init__(self, loop):
        self.lost = loop.create_future()

    def connection_lost(self, error):
        self.lost.set_result(error)


async def connect(loop):
    """Return the reading end, and the transport and protocol of the writing end."""
    reading, writing = os.pipe()
    transport, protocol = await loop.connect_write_pipe(lambda: Writing(loop), os.fdopen(writing, "wb", 0))
    return reading, transport, protocol


async def test_a_pipe_nobody_reads_any_more_is_broken(loop):
    reading, transport, protocol = await connect(loop)
    os.close(reading)
    assert isinstance(await protocol.lost, (BrokenPipeError, type(None)))
    assert transport.is_closing()
    transport.write(b"harmless")


async def test_a_pipe_that_breaks_while_it_is_full(loop):
    reading, transport, protocol = await connect(loop)
    transport.write(bytes(1 << 20))
    assert transport.get_write_buffer_size() > 0
    os.close(reading)
    error = await protocol.lost
    assert isinstance(error, BrokenPipeError)
    assert transport.get_write_buffer_size() == 0


async def test_aborting_a_full_pipe_frees_it(loop):
    reading, transport, protocol = await connect(loop)
    transport.write(bytes(1 << 20))
    transport.abort()
    assert await protocol.lost is None
    assert transport.get_write_buffer_size() == 0
    os.set_blocking(reading, False)
    assert until_it_blocks_or_ends(reading) <= 1 << 20
    os.close(reading)


def until_it_blocks_or_ends(file: int) -> int:
    total = 0
    while part := os.read(file, 1 << 16):
        total += len(part)
    return total


async def test_a_full_device_is_an_error_of_the_protocol(loop):
    with open("/dev/full", "wb", 0) as file:
        try:
            transport, protocol = await loop.connect_write_pipe(lambda: Writing(loop), file)
        except (PermissionError, ValueError):
            pytest.skip("this loop refuses the device")
        transport.write(b"x")
        error = await protocol.lost
        assert isinstance(error, OSError)
        assert error.errno == errno.ENOSPC


async def test_a_child_that_closes_its_input_breaks_the_pipe(loop):
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", "import os, sys; os.close(0); print(flush=True); sys.stdin = None; input"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    await process.stdout.readline()
    process.stdin.write(bytes(1 << 20))
    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        await process.stdin.drain()
    assert await process.wait() == 0
    process.stdin.close()


def test_a_broken_connection_does_not_kill_a_program_that_left_sigpipe_alone(loop_name, loop_factory):
    """Python ignores SIGPIPE; a program that does not still survives a socket."""
    if loop_name == "asyncio":
        pytest.skip("asyncio sends without MSG_NOSIGNAL: the signal ends the program")
    program = (
        "import asyncio, signal, socket, sys, aioxide\n"
        "signal.signal(signal.SIGPIPE, signal.SIG_DFL)\n"
        "class Protocol(asyncio.Protocol):\n"
        "    def connection_lost(self, error):\n"
        "        lost.set_result(error)\n"
        "    def eof_received(self):\n"
        "        return True\n"
        "async def main():\n"
        "    global lost\n"
        "    for size in (10, 1 << 20):\n"
        "        loop = asyncio.get_running_loop()\n"
        "        lost = loop.create_future()\n"
        "        ours, theirs = socket.socketpair()\n"
        "        transport, _ = await loop.create_connection(Protocol, sock=ours)\n"
        "        theirs.close()\n"
        "        while not lost.done():\n"
        "            transport.write(bytes(size))\n"
        "            await asyncio.sleep(0.001)\n"
        "        assert isinstance(lost.result(), (BrokenPipeError, ConnectionResetError)), lost\n"
        "aioxide.run(main(), loop_factory=lambda: aioxide.EventLoop(sys.argv[1]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, loop_name], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0, done


async def test_a_socket_nobody_reads_any_more_is_broken_for_sock_sendall(loop):
    ours, theirs = socket.socketpair()
    with ours:
        ours.setblocking(False)
        until_it_blocks(ours.send, bytes(1 << 16))
        sending = asyncio.ensure_future(loop.sock_sendall(ours, b"more"))
        await asyncio.sleep(0.005)
        assert not sending.done()
        theirs.close()
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            await sending
