"""fork(2) and the processes of `multiprocessing`, while a loop runs."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import gc
import json
import multiprocessing
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from typing import Any

import pytest

# From 3.12 Python warns of a fork in a process with threads, which a test run may well have.
pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")

REFUSAL = "belongs to the parent process"


def fork(body: Callable[[], Any]) -> int:
    """Run `body` in a forked child, which ends there; return its process number."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        body()
        status = 0
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(status)


def in_child(body: Callable[[], Any]) -> Any:
    """Run `body` in a forked child and return what it returned, as JSON carries it."""
    reader, writer = os.pipe()
    child = fork(lambda: os.write(writer, json.dumps(body()).encode()))
    os.close(writer)
    with open(reader, "rb") as file:
        result = file.read()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, "the child failed, see its traceback"
    return json.loads(result)


def drive(coroutine) -> None:
    """Run a coroutine without a loop, up to where it first waits."""
    with contextlib.suppress(StopIteration):
        coroutine.send(None)
    coroutine.close()


async def echo(reader, writer) -> None:
    while line := await reader.readline():
        writer.write(line)
    writer.close()
    await writer.wait_closed()


async def echo_server(loop):
    """Return an echo server and a connection to it."""
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    return server, *await asyncio.open_connection(*server.sockets[0].getsockname())


async def close_all(server, writer) -> None:
    writer.close()
    await writer.wait_closed()
    server.close()
    await server.wait_closed()
    # Before 3.13 a server does not wait for its connections.
    await asyncio.gather(*(task for task in asyncio.all_tasks() if task.get_coro().__name__ == "echo"))


async def expect_echo(reader, writer, line: bytes) -> None:
    writer.write(line)
    async with asyncio.timeout(10):
        assert await reader.readline() == line


async def test_every_use_of_the_loop_is_refused_in_the_child(loop, is_aioxide):
    if not is_aioxide:
        pytest.skip("asyncio lets the child disturb the parent's selector")
    server, reader, writer = await echo_server(loop)
    await expect_echo(reader, writer, b"before\n")
    near, far = socket.socketpair()
    near.setblocking(False)
    watched = asyncio.Event()
    loop.add_reader(near, watched.set)
    timer = loop.call_later(1000, int)
    transport = writer.transport
    datagrams, _ = await loop.create_datagram_endpoint(
        asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0), remote_addr=("127.0.0.1", 9)
    )
    pipe_reader, pipe_writer = os.pipe()
    read_pipe = os.fdopen(pipe_reader, "rb")
    pipe, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, os.fdopen(pipe_writer, "wb"))
    uses: dict[str, Callable[[], object]] = {
        "run_forever": loop.run_forever,
        "run_until_complete": lambda: loop.run_until_complete(loop.create_future()),
        "call_soon": lambda: loop.call_soon(int),
        "call_soon_threadsafe": lambda: loop.call_soon_threadsafe(int),
        "call_later": lambda: loop.call_later(0, int),
        "call_at": lambda: loop.call_at(0, int),
        "add_reader": lambda: loop.add_reader(far, int),
        "add_writer": lambda: loop.add_writer(far, int),
        "remove_reader": lambda: loop.remove_reader(near),
        "remove_writer": lambda: loop.remove_writer(near),
        "add_signal_handler": lambda: loop.add_signal_handler(signal.SIGUSR1, int),
        "run_in_executor": lambda: loop.run_in_executor(None, int),
        "sock_recv": lambda: drive(loop.sock_recv(near, 1)),
        "create_connection": lambda: drive(loop.create_connection(asyncio.Protocol, "127.0.0.1", 1)),
        "create_server": lambda: drive(loop.create_server(asyncio.Protocol, "127.0.0.1", 0)),
        "create_unix_connection": lambda: drive(loop.create_unix_connection(asyncio.Protocol, "/none")),
        "create_unix_server": lambda: drive(loop.create_unix_server(asyncio.Protocol, "\0none")),
        "subprocess_exec": lambda: drive(loop.subprocess_exec(asyncio.SubprocessProtocol, "true")),
        "write": lambda: transport.write(b"from the child\n"),
        "large write": lambda: transport.write(bytes(1 << 20)),
        "writelines": lambda: transport.writelines([b"from the child\n"]),
        "write_eof": transport.write_eof,
        "close of a transport": transport.close,
        "abort": transport.abort,
        "pause_reading": transport.pause_reading,
        "server": server.close,
        "sendto": lambda: datagrams.sendto(b"from the child"),
        "close of datagrams": datagrams.close,
        "write to a pipe": lambda: pipe.write(b"from the child"),
        "close of a pipe": pipe.close,
        "create_datagram_endpoint": lambda: drive(
            loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0))
        ),
        "connect_read_pipe": lambda: drive(loop.connect_read_pipe(asyncio.Protocol, read_pipe)),
    }

    def use_the_loop() -> dict[str, str]:
        accepted = {}
        for name, use in uses.items():
            try:
                use()
            except RuntimeError as error:
                if REFUSAL not in str(error):
                    accepted[name] = repr(error)
            except BaseException as error:
                accepted[name] = repr(error)
            else:
                accepted[name] = "no exception"
        timer.cancel()
        loop.stop()
        return accepted

    assert in_child(use_the_loop) == {}
    await expect_echo(reader, writer, b"after\n")
    assert not watched.is_set()
    far.send(b"x")
    async with asyncio.timeout(10):
        await watched.wait()
    loop.remove_reader(near)
    near.close()
    far.close()
    assert not timer.cancelled()
    timer.cancel()
    datagrams.close()
    pipe.close()
    await asyncio.sleep(0.001)
    assert read_pipe.read() == b""
    read_pipe.close()
    await close_all(server, writer)


async def test_what_the_child_makes_of_its_copies_does_not_reach_the_parent(loop, is_aioxide):
    """Closing and collecting them, and using the memory that was the ring's."""
    if not is_aioxide:
        pytest.skip("asyncio's child closes its epoll instance, which does no harm either")
    server, reader, writer = await echo_server(loop)
    await expect_echo(reader, writer, b"before\n")

    def discard() -> bool:
        nonlocal loop, server, reader, writer
        loop.close()
        loop.close()
        server = reader = writer = loop = None
        gc.unfreeze()
        gc.collect()
        memory = [bytearray(1 << 20) for _ in range(50)]
        return all(piece == bytes(1 << 20) for piece in memory)

    assert in_child(discard)
    for _ in range(100):
        await expect_echo(reader, writer, b"after\n")
    await close_all(server, writer)


def test_a_copy_of_a_loop_that_does_not_run_can_be_collected(loop_factory, is_aioxide):
    loops = [loop_factory() for _ in range(3)]
    for loop in loops:
        loop.run_until_complete(asyncio.sleep(0))

    def discard() -> bool:
        if is_aioxide:
            assert not any(loop.is_running() for loop in loops)
        for loop in loops:
            loop.close()
        loops.clear()
        gc.unfreeze()
        gc.collect()
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            return runner.run(asyncio.sleep(0.001, True))

    assert in_child(discard) is True
    for loop in loops:
        assert loop.run_until_complete(asyncio.sleep(0.001, 5)) == 5
        loop.close()


def test_a_child_that_returns_into_the_loop_leaves_it(loop, is_aioxide):
    if not is_aioxide:
        pytest.skip("asyncio goes on in the child, with the parent's selector")
    parent = os.getpid()
    ran_reader, ran_writer = os.pipe()
    children: list[int] = []
    loop.call_soon(lambda: children.append(os.fork()))
    loop.call_soon(os.write, ran_writer, b"x")
    loop.call_soon(loop.stop)
    try:
        loop.run_forever()
    except RuntimeError as error:
        assert os.getpid() != parent
        os._exit(42 if REFUSAL in str(error) and asyncio._get_running_loop() is None else 1)
    finally:
        if os.getpid() != parent:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]) == 42
    os.close(ran_writer)
    with open(ran_reader, "rb") as file:
        assert file.read() == b"x", "the child ran the parent's next callback"


def test_a_child_that_exits_in_a_callback_does_so(loop):
    parent = os.getpid()
    children: list[int] = []

    def fork_and_exit() -> None:
        child = os.fork()
        if not child:
            sys.exit(7)
        children.append(child)

    loop.call_soon(fork_and_exit)
    loop.call_soon(loop.stop)
    try:
        loop.run_forever()
    except SystemExit as exit:
        os._exit(exit.code if os.getpid() != parent else 1)
    finally:
        if os.getpid() != parent:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]) == 7


async def test_a_child_forked_by_a_running_loop_runs_a_loop_of_its_own(loop, loop_factory):
    server, reader, writer = await echo_server(loop)

    def run() -> list[Any]:
        with pytest.raises(RuntimeError, match="no running event loop"):
            asyncio.get_running_loop()

        async def main() -> list[Any]:
            own_server, own_reader, own_writer = await echo_server(asyncio.get_running_loop())
            await expect_echo(own_reader, own_writer, b"own\n")
            await close_all(own_server, own_writer)
            process = await asyncio.create_subprocess_exec("echo", "child", stdout=asyncio.subprocess.PIPE)
            output, _ = await process.communicate()
            infos = await asyncio.get_running_loop().getaddrinfo("localhost", 80, type=socket.SOCK_STREAM)
            return [output.decode(), bool(infos), await asyncio.to_thread(int, "42")]

        with asyncio.Runner(loop_factory=loop_factory) as runner:
            return runner.run(main())

    assert in_child(run) == ["child\n", True, 42]
    await expect_echo(reader, writer, b"the parent's\n")
    await close_all(server, writer)


async def test_signals_of_the_child_stay_in_the_child(loop, is_aioxide):
    if not is_aioxide and sys.version_info < (3, 12):
        pytest.skip("asyncio's child writes its signals to the parent's loop")
    received: list[str] = []
    loop.add_signal_handler(signal.SIGUSR1, received.append, "here")

    def signal_itself() -> int:
        os.kill(os.getpid(), signal.SIGUSR1)
        return signal.set_wakeup_fd(-1)

    assert in_child(signal_itself) == -1
    await asyncio.sleep(0.01)
    assert received == []
    os.kill(os.getpid(), signal.SIGUSR1)
    async with asyncio.timeout(10):
        while not received:
            await asyncio.sleep(0)
    loop.remove_signal_handler(signal.SIGUSR1)


def test_a_fork_of_a_fork_runs_a_loop_too(loop_factory):
    def run() -> int:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            return runner.run(nested())

    async def nested() -> int:
        def innermost() -> int:
            with asyncio.Runner(loop_factory=loop_factory) as runner:
                return runner.run(asyncio.sleep(0.001, 3))

        return in_child(innermost) + await asyncio.sleep(0.001, 2)

    assert in_child(run) == 5


# `multiprocessing`: what a child is given to do must be found by name.


def make_loop(name: str) -> asyncio.AbstractEventLoop:
    if name == "asyncio":
        return asyncio.SelectorEventLoop()
    import aioxide

    return aioxide.EventLoop(driver=name)


async def double_slowly(number: int) -> int:
    await asyncio.sleep(0.001)
    return await asyncio.to_thread(lambda: 2 * number)


def double(loop_name: str, number: int) -> int:
    with asyncio.Runner(loop_factory=lambda: make_loop(loop_name)) as runner:
        return runner.run(double_slowly(number))


def send_doubled(connection: Any, loop_name: str, number: int) -> None:
    connection.send(double(loop_name, number))
    connection.close()


METHODS = ("fork", "forkserver", "spawn")


@pytest.mark.parametrize("method", METHODS)
async def test_processes_of_multiprocessing_run_loops_of_their_own(loop, loop_name, method):
    server, reader, writer = await echo_server(loop)
    context = multiprocessing.get_context(method)
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=send_doubled, args=(sender, loop_name, 21))
    process.start()
    sender.close()
    for _ in range(10):
        await expect_echo(reader, writer, b"meanwhile\n")
    arrived = asyncio.Event()
    loop.add_reader(receiver.fileno(), arrived.set)
    async with asyncio.timeout(50):
        await arrived.wait()
    loop.remove_reader(receiver.fileno())
    assert receiver.recv() == 42
    receiver.close()
    await asyncio.to_thread(process.join)
    assert process.exitcode == 0
    process.close()
    await close_all(server, writer)
    stop_helpers(method)


@pytest.mark.parametrize("method", METHODS)
async def test_a_process_pool_is_an_executor(loop, loop_name, method):
    context = multiprocessing.get_context(method)
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as pool:
        async with asyncio.timeout(50):
            results = await asyncio.gather(
                *(loop.run_in_executor(pool, double, loop_name, number) for number in range(6))
            )
            with pytest.raises(ZeroDivisionError):
                await loop.run_in_executor(pool, divmod, 1, 0)
    assert results == [0, 2, 4, 6, 8, 10]
    stop_helpers(method)


def stop_helpers(method: str) -> None:
    """End the processes that `multiprocessing` keeps for the next time, and the pipes to them."""
    from multiprocessing import forkserver, resource_tracker

    if method == "forkserver":
        forkserver._forkserver._stop()
    if method != "fork":
        resource_tracker._resource_tracker._stop()
